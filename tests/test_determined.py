"""Maps from few pairs are determined by the data alone.

Not by the order of rows, the number of threads, or the last digit of the input.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from alignmerge_nb.aligners.base import Aligner
from alignmerge_nb.aligners.registry import make_aligner
from alignmerge_nb.core import generator
from alignmerge_nb.lab.experiments.identifiability import blind_pairs
from alignmerge_nb.lab.worlds import factor_world
from alignmerge_nb.testing import planted

PAIRS, ROWS, TEST = 16, 120, 50  # fewer pairs than dimensions
CLOSED_FORMS = {
    "ridge": {},
    "procrustes": {},
    "cca": {},
    "kernel_cca": {},
    "csa": {},
    "asif": {},
    "relative": {},
    "gromov": {},
    "fused_gromov": {},
    "diffusion_transport": {},
    "seeded_matching": {},
    "wasserstein": {"steps": 0},
    "align_merge": {"flow_steps": 0, "landmarks": [64, 64]},
}


def world() -> tuple[Tensor, Tensor, Tensor]:
    x, y = planted(ROWS + TEST, dx=60, dy=40)
    return x, y, torch.arange(PAIRS)[:, None].expand(PAIRS, 2)


def similarity(aligner: Aligner) -> Tensor:
    "Cosines of items that `fit` did not see; free of rotations of the whole shared space."
    x, y, _ = world()
    return aligner.similarity(x[ROWS:], y[ROWS:])


def noisy(cloud: Tensor, seed: int) -> Tensor:
    return cloud + 1e-7 * cloud.std() * torch.randn(
        cloud.shape, generator=generator(seed, "last digit")
    )


@pytest.fixture
def threads() -> Iterator[None]:
    "The number of threads as it was, afterwards."
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_same_map_from_noise_order_and_threads(name: str, threads: None) -> None:
    x, y, pairs = world()
    x, y = x[:ROWS], y[:ROWS]

    def fit(*data: Tensor) -> Tensor:
        return similarity(make_aligner(name, **CLOSED_FORMS[name]).fit(*data))

    torch.set_num_threads(1)
    first = fit(x, y, pairs)
    order = torch.randperm(PAIRS, generator=generator(0, "order"))
    cases = {
        "noise": fit(noisy(x, 1), noisy(y, 2), pairs),
        "order of pairs": fit(x, y, pairs[order]),
    }
    if name != "seeded_matching":  # which draws unpaired rows by number
        turn = torch.randperm(ROWS, generator=generator(0, "rows"))
        cases["order of rows"] = fit(x[turn], y[turn], torch.argsort(turn)[pairs])
    torch.set_num_threads(2)
    cases["threads"] = fit(x, y, pairs)
    for what, other in cases.items():
        assert torch.allclose(other, first, atol=1e-4), (what, float((other - first).abs().max()))


def test_procrustes_is_a_partial_isometry_of_the_rank_of_the_pairs() -> None:
    x, y, pairs = world()
    sizes = torch.linalg.svdvals(make_aligner("procrustes").fit(x, y, pairs).weight_x.double())
    assert (
        torch.allclose(sizes[: PAIRS - 1], torch.ones(PAIRS - 1).double(), atol=1e-5)
        and sizes[PAIRS - 1 :].max() < 1e-5
    )


@pytest.mark.parametrize("mixing, overlap", [("linear", 0.9), ("flow", 0.9), ("folded", 0.5)])
def test_pairs_without_pairs_do_not_hang_on_the_last_digit(mixing: str, overlap: float) -> None:
    data = factor_world(128, mixing=mixing, overlap=overlap, noise=0.02)
    proposed = [
        blind_pairs(*clouds) for clouds in ((data.x, data.y), (noisy(data.x, 1), noisy(data.y, 2)))
    ]
    assert all(error < 1e-3 for _, error in proposed)
    same = (proposed[0][0] == proposed[1][0]).all(1).double().mean()
    assert same > 0.98, float(same)
