"""Every registered aligner and fusion head keeps its contract."""

from functools import partial

import pytest

from alignmerge_nb.aligners.registry import ALIGNERS, make_aligner
from alignmerge_nb.fusion.registry import HEADS, make_head
from alignmerge_nb.testing import check_aligner, check_head

QUICK = {
    "contrastive_linear": {"steps": 60},
    "contrastive_mlp": {"steps": 60},
    "ot_align_merge": {"steps": 20},
    "conse": {"top": 3, "temperature": 20.0},
    "sotalign": {"steps": 20},
    "wasserstein": {"steps": 10},
    "structure": {"steps": 30},
    "prototype_transport": {"steps": 30},
}
BLIND = {"identity", "wasserstein"}  # they see no pair
DRAWS_ROWS = {"cloud", "nodes", "noise"}  # settings of methods that draw unpaired rows by number


@pytest.mark.parametrize("name", ALIGNERS)
def test_aligner(name: str) -> None:
    make = partial(make_aligner, name, **QUICK.get(name, {}))
    any_order = not DRAWS_ROWS & set(make().config)
    check_aligner(make, finds=name not in BLIND, any_order=any_order)


@pytest.mark.parametrize("name", HEADS)
def test_head(name: str) -> None:
    check_head(HEADS[name])
    check_head(partial(make_head, name))
