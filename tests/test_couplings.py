"""Couplings at their limits: small and large ε, strange scales, single points, no convergence."""

from __future__ import annotations

import math

import pytest
import torch

import alignmerge_nb.transport.costs as module
from alignmerge_nb.core import InputError, generator
from alignmerge_nb.lab.experiments.cost import planted_clouds, potentials_error
from alignmerge_nb.transport.costs import PointCloudCost, squared_euclidean
from alignmerge_nb.transport.exact import emd
from alignmerge_nb.transport.sinkhorn import _working_dtype, sinkhorn


def clouds(n: int = 200, m: int = 150, d: int = 16):
    return torch.randn(n, d, generator=generator(0, "x")) + 1, torch.randn(
        m, d, generator=generator(0, "y")
    )


@pytest.mark.parametrize(
    "epsilon, tolerance", [(0.01, 1e-4), (0.01, 1e-6), (0.002, 1e-4), (0.002, 1e-6)]
)
def test_hard_settings_converge_in_float64_potentials(epsilon, tolerance):
    x, y = planted_clouds(1000)
    cost = PointCloudCost(x, y)
    coupling = sinkhorn(cost, epsilon=epsilon, tolerance=tolerance)
    assert coupling.converged and coupling.plan.dtype == torch.float32
    assert (
        potentials_error(x, y, *coupling.potentials, coupling.epsilon) <= tolerance + 1e-6
    )  # float32 clouds, centred
    if tolerance == 1e-6:
        assert _working_dtype(cost, coupling.epsilon, tolerance) == torch.float64


def test_an_unfinished_plan_says_so():
    coupling = sinkhorn(
        PointCloudCost(*planted_clouds(500)), epsilon=0.002, tolerance=1e-6, max_iterations=50
    )
    assert not coupling.converged and "NOT converged" in repr(coupling)
    with pytest.raises(InputError, match="max_iterations"):
        coupling.require_converged()


@pytest.mark.parametrize("epsilon", [1e-4, 1e-9, 1e-30])
def test_far_too_small_epsilon_gives_numbers_and_no_promise(epsilon):
    coupling = sinkhorn(PointCloudCost(*clouds()), epsilon=epsilon, max_iterations=30)
    assert coupling.plan.isfinite().all() and coupling.converged == (
        coupling.marginal_error <= coupling.tolerance
    )
    assert not coupling.converged


@pytest.mark.parametrize("epsilon", [1e6, 1e30])
def test_large_epsilon_is_independence(epsilon):
    coupling = sinkhorn(PointCloudCost(*clouds()), epsilon=epsilon)
    assert coupling.converged and (coupling.plan - 1 / coupling.plan.numel()).abs().sum() < 1e-4


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_epsilon_that_means_nothing(epsilon):
    with pytest.raises(InputError, match="epsilon"):
        sinkhorn(PointCloudCost(*clouds()), epsilon=epsilon)


@pytest.mark.parametrize("scale", [1e-6, 1e6, 1e15])
def test_the_scale_of_the_cost_does_not_matter(scale):
    x, y = clouds()
    plan = sinkhorn(PointCloudCost(x, y), tolerance=1e-5).plan
    for cost in (PointCloudCost(scale**0.5 * x, scale**0.5 * y), scale * squared_euclidean(x, y)):
        assert (sinkhorn(cost, tolerance=1e-5).plan - plan).abs().sum() < 1e-4


def test_equal_points_and_negative_costs():
    flat = sinkhorn(PointCloudCost(torch.full((3, 4), 0.1), torch.full((5, 4), 0.1)))
    assert flat.converged and torch.allclose(flat.plan, torch.full((3, 5), 1 / 15))
    x, y = clouds()
    cost = squared_euclidean(x, y)
    with pytest.raises(InputError, match="Subtract"):
        sinkhorn(-cost)
    assert (emd(cost - 5).plan - emd(cost).plan).abs().sum() < 1e-5


@pytest.mark.parametrize("n, m", [(1, 1), (1, 150), (200, 1), (200, 3)])
def test_single_points_and_unequal_sizes(n, m):
    x, y = clouds()
    coupling = sinkhorn(PointCloudCost(x[:n], y[:m]))
    assert coupling.plan.shape == (n, m) and coupling.converged
    if min(n, m) == 1:
        assert torch.allclose(coupling.plan, torch.full((n, m), 1 / (n * m)), rtol=1e-3)


@pytest.mark.parametrize(
    "masses, say",
    [
        (torch.eye(200)[0], "zero"),
        (torch.ones(200), "total"),
        (torch.ones(3) / 3, "shape"),
        (torch.full((200,), math.nan), "non-finite"),
    ],
)
def test_masses_that_are_none(masses, say):
    with pytest.raises(InputError, match=say):
        sinkhorn(PointCloudCost(*clouds()), masses)


def test_memory_is_checked_before_it_is_taken(monkeypatch):
    x, y = clouds()
    coupling = sinkhorn(PointCloudCost(x, y), memory=0.0)
    monkeypatch.setattr(module, "_free_memory", lambda device: 1000.0)
    for call, instead in (
        (lambda: squared_euclidean(x, y), "PointCloudCost"),
        (lambda: coupling.plan, "barycenters"),
        (lambda: sinkhorn(PointCloudCost(x, y)), "memory"),
    ):
        with pytest.raises(InputError, match=instead):
            call()
    assert coupling.converged and coupling.barycenters(y).shape == x.shape  # block by block


@pytest.mark.parametrize("epsilon, tolerance", [(0.05, 1e-4), (0.01, 1e-6)])
def test_a_rounded_kernel_ends_at_the_exact_plan(epsilon, tolerance):
    x, y = planted_clouds(600)
    kept, rounded = (
        sinkhorn(PointCloudCost(x, y), epsilon=epsilon, tolerance=tolerance, memory=memory)
        for memory in (4.0, 2.1 * 600 * 600 / 1e9)
    )
    assert (
        rounded.converged
        and potentials_error(x, y, *rounded.potentials, rounded.epsilon) <= tolerance
    )
    assert (kept.plan - rounded.plan).abs().sum() < 10 * tolerance
    assert not sinkhorn(
        PointCloudCost(x, y),
        epsilon=epsilon,
        tolerance=tolerance,
        memory=2.1 * 600 * 600 / 1e9,
        max_iterations=5,
    ).converged
