"""Fusion heads: a planted task that separates them, masks, gradients, determinism and bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alignmerge_nb.core import InputError, fix_torchvision, generator
from alignmerge_nb.fusion.base import PARAMETER_LIMIT, FusionHead, parameter_count
from alignmerge_nb.fusion.registry import (
    HEADS,
    TokenItems,
    TrainOptions,
    changed,
    drop_modalities,
    epoch_batches,
    evaluate,
    load_head,
    logits_of,
    make_head,
    planted_lookup,
    predict,
    save_head,
    train_head,
    without,
)
from alignmerge_nb.fusion.sequence import Mamba, Scan

QUICK = TrainOptions(epochs=12, batch=250, learning_rate=1e-2)
SHAPES = [
    {},
    {"query": "x"},
    {"symmetric": True},
    {"n_layers": 2},
    {"symmetric": True, "n_layers": 2, "heads": 2},
]
KINDS = [
    *((name, {}) for name in HEADS),
    *(("cross_attention", options) for options in SHAPES[1:]),
    ("gated", {"symmetric": True}),
    ("late", {"rule": "sum"}),
    ("hybrid", {"rule": "sum"}),
    ("early", {"n_layers": 1}),
    ("bottleneck", {"n_shared": 1, "n_layers": 3}),
    ("q_former", {"query": "x", "n_queries": 2}),
    ("graph", {"rounds": 3}),
    ("mamba", {"n_layers": 3, "state": 4}),
]
ORDERED = {name for name, kind in HEADS.items() if getattr(kind, "ordered", False)}


WIDTHS = {"x": 10, "y": 6}


def batch(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    "Tokens and masks: four rows of seven x tokens (two masked) and five y tokens (one masked)."
    rng = generator(seed, "test batch")
    x_mask, y_mask = torch.ones(4, 7, dtype=torch.bool), torch.ones(4, 5, dtype=torch.bool)
    x_mask[1:, 5:], y_mask[0, 4:] = False, False
    return {"x": torch.randn(4, 7, 10, generator=rng), "y": torch.randn(4, 5, 6, generator=rng)}, {
        "x": x_mask,
        "y": y_mask,
    }


def trained(
    name: str, seed: int = 0, training: TrainOptions = QUICK, **options
) -> tuple[FusionHead, float, list[dict[str, float]]]:
    "A head, its accuracy on held-out items of the planted look-up, and its history."
    pairs, labels = planted_lookup(3000, seed)
    head = make_head(name, WIDTHS, 4, seed=seed, width=32, **options)
    history = train_head(
        head, pairs, labels, torch.arange(2000), torch.arange(2000, 2500), training, seed
    )
    return head, evaluate(head, pairs, labels, torch.arange(2500, 3000))[1], history


def test_attention_binds_and_pooling_cannot() -> None:
    "A pool knows the bag of values: guessing its commonest value is right in about 0.45 of the cases, more is not to be had."
    pairs, labels = planted_lookup(3000)
    bag = pairs.tokens["x"][..., 6:].sum(1).argmax(1)  # the best answer that the bag allows
    ceiling = float((bag == labels).float().mean())
    cross = trained("cross_attention")[1]
    for name in ("concat", "average"):
        accuracy = trained(name)[1]
        assert accuracy < ceiling + 0.06 and cross > accuracy + 0.4
    assert cross > 0.97


def test_either_side_may_ask() -> None:
    for options in ({"query": "x", "n_layers": 2}, {"symmetric": True}):
        assert trained("cross_attention", **options)[1] > 0.95


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_masked_tokens_do_not_exist(name: str, options: dict) -> None:
    z, mask = batch()
    head = make_head(name, WIDTHS, 3, **options)
    with torch.no_grad():
        logits = head(z, mask)
        garbage = head({key: torch.where(mask[key][..., None], z[key], 1e3) for key in z}, mask)
        shorter = head({"x": z["x"][1:, :5], "y": z["y"][1:]}, {"y": mask["y"][1:]})
        unmasked = head(z)
    assert logits.shape == (4, 3)
    torch.testing.assert_close(logits, garbage, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[1:], shorter, atol=1e-5, rtol=1e-4)
    assert (logits - unmasked).abs().amax(1).min() > 1e-4


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_order_of_tokens_matters_only_where_a_head_says_so(name: str, options: dict) -> None:
    z, mask = batch()
    a, b = torch.randperm(7, generator=generator(1)), torch.randperm(5, generator=generator(2))
    head = make_head(name, WIDTHS, 3, **options)
    with torch.no_grad():
        one, other = (
            head(z, mask),
            head(
                {"x": z["x"][:, a], "y": z["y"][:, b]}, {"x": mask["x"][:, a], "y": mask["y"][:, b]}
            ),
        )
    if name in ORDERED:
        assert (one - other).abs().amax(1).min() > 1e-5
    else:
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_gradient_reaches_every_parameter(name: str, options: dict) -> None:
    z, mask = batch()
    head = make_head(name, WIDTHS, 3, **options)
    given = head.projected(
        z,
        mask,
        {
            "x": torch.tensor([True, False, True, True]),
            "y": torch.tensor([True, True, False, True]),
        },
    )
    (head.combine(*given).square().sum() + head.penalty(*given)).backward()
    assert [
        key
        for key, value in head.named_parameters()
        if value.grad is None or not value.grad.abs().sum() > 0
    ] == []


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_what_stands_where_a_modality_is_missing_has_no_say(name: str, options: dict) -> None:
    z, mask = batch()
    head, there = (
        make_head(name, WIDTHS, 3, **options),
        {
            "x": torch.tensor([True, False, True, True]),
            "y": torch.tensor([True, True, False, True]),
        },
    )
    with torch.no_grad():
        some, full = head(z, mask, there), head(z, mask)
        garbage = head(
            {key: torch.where(there[key][:, None, None], z[key], torch.nan) for key in z},
            mask,
            there,
        )
        alone = head({"y": z["y"][1:2]}, {"y": mask["y"][1:2]})
    torch.testing.assert_close(some, garbage, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(some[1:2], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(some[[0, 3]], full[[0, 3]], atol=1e-5, rtol=1e-4)
    assert (some - full)[1:3].abs().amax(1).min() > 1e-4


@pytest.mark.parametrize("name", HEADS)
def test_two_pictures_and_a_statement(name: str) -> None:
    z, mask = batch()
    three, widths = (
        {"left": z["x"], "right": z["x"].flip(0), "y": z["y"]},
        {"left": 10, "right": 10, "y": 6},
    )
    head = make_head(name, widths, 3)
    given = head.projected(
        three,
        {"left": mask["x"], "y": mask["y"]},
        {"right": torch.tensor([True, True, False, True])},
    )
    (head.combine(*given).square().sum() + head.penalty(*given)).backward()
    assert [
        key
        for key, value in head.named_parameters()
        if key not in ("absent.left", "absent.y") and not value.grad.abs().sum() > 0
    ] == []
    with torch.no_grad():
        assert torch.isfinite(head({"right": z["x"]})).all()


@pytest.mark.parametrize("name", ["late", "graph", "bottleneck"])
def test_left_out_is_never_there(name: str) -> None:
    "Without y these heads say what a head of the same weights says that was built for x alone."
    z, mask = batch()
    both, only = make_head(name, WIDTHS, 3), make_head(name, {"x": 10}, 3)
    only.load_state_dict(
        {key: value for key, value in both.state_dict().items() if key in only.state_dict()}
    )
    with torch.no_grad():
        torch.testing.assert_close(
            both({"x": z["x"]}, {"x": mask["x"]}),
            only({"x": z["x"]}, {"x": mask["x"]}),
            atol=1e-5,
            rtol=1e-4,
        )


@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
def test_scan_is_the_recurrence(length: int) -> None:
    rng = generator(0, "scan")
    a, b = (
        torch.rand(2, length, 3, dtype=torch.float64, generator=rng).requires_grad_(),
        torch.randn(2, length, 3, dtype=torch.float64, generator=rng).requires_grad_(),
    )
    state, states = torch.zeros(2, 3, dtype=torch.float64), []
    for t in range(length):
        states.append(state := a[:, t] * state + b[:, t])
    loop, scan, weight = (
        torch.stack(states, 1),
        Scan.apply(a, b),
        torch.randn(2, length, 3, dtype=torch.float64, generator=rng),
    )
    torch.testing.assert_close(scan, loop)
    for mine, theirs in zip(
        torch.autograd.grad((scan * weight).sum(), (a, b)),
        torch.autograd.grad((loop * weight).sum(), (a, b)),
    ):
        torch.testing.assert_close(mine, theirs)


def test_mamba_takes_the_weights_of_the_reference() -> None:
    fix_torchvision()
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs, ours, h = (
            MambaMixer(
                MambaConfig(
                    hidden_size=40,
                    state_size=6,
                    conv_kernel=3,
                    expand=2,
                    time_step_rank=3,
                    use_bias=False,
                ),
                0,
            ).eval(),
            Mamba(40, state=6, kernel=3),
            torch.randn(2, 19, 40),
        )
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(h, torch.ones(2, 19, dtype=torch.bool)), theirs(h))


@pytest.mark.parametrize("name", HEADS)
def test_light_at_the_widths_of_real_encoders(name: str) -> None:
    width = (
        96 if name == "dec_align" else 192
    )  # it has two projections of each modality, and a transformer for both parts
    assert (
        parameter_count(make_head(name, {"x": 2048, "y": 768}, 3129, width=width)) < PARAMETER_LIMIT
    )  # ResNet-50, BERT, the answers of VQA v2
    with pytest.raises(InputError, match="fewer than 2,000,000"):
        make_head(name, {"x": 2048, "y": 768}, 3129, width=2048)


@pytest.mark.parametrize("name", HEADS)
def test_seed_decides_everything(name: str) -> None:
    state = torch.random.get_rng_state()
    brief = TrainOptions(epochs=1, batch=500)
    (one, _, history), (two, _, again), (other, *_) = (
        trained(name, 0, brief),
        trained(name, 0, brief),
        trained(name, 1, brief),
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(one.state_dict()[key], value) for key, value in two.state_dict().items())
    assert [row["val_loss"] for row in history] == [row["val_loss"] for row in again]
    assert not torch.equal(one.inputs["x"].weight, other.inputs["x"].weight)


def test_training_keeps_the_best_epoch_and_stops_early() -> None:
    pairs, labels = planted_lookup(600)
    noise = torch.randint(
        4, (600,), generator=generator(0, "noise")
    )  # nothing to learn: validation cannot improve for long
    head = make_head("cross_attention", WIDTHS, 4)
    val = torch.arange(400, 600)
    history = train_head(
        head, pairs, noise, torch.arange(400), val, TrainOptions(epochs=40, batch=100, patience=3)
    )
    assert len(history) < 40
    assert evaluate(head, pairs, noise, val)[1] == max(row["val_accuracy"] for row in history)


def test_shared_sequences_give_the_same_logits_and_gradients() -> None:
    z, mask = batch()
    index = torch.tensor([0, 0, 3, 1, 1, 2]), torch.tensor([1, 2, 0, 0, 3, 3])
    index, lacks = dict(zip(z, index)), torch.tensor([False, True, False, False, False, False])
    items, head = (
        TokenItems(z, index | {"y": torch.where(lacks, -1, index["y"])}, mask),
        make_head("cross_attention", WIDTHS, 3, symmetric=True),
    )
    shared, plain = (
        logits_of(head, items, torch.arange(6)),
        head(
            {key: z[key][index[key]] for key in z},
            {key: mask[key][index[key]] for key in z},
            {"y": ~lacks},
        ),
    )
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=1e-4)
    known = [value for key, value in head.named_parameters() if key != "absent.x"]
    for a, b in zip(
        torch.autograd.grad(shared.square().sum(), known),
        torch.autograd.grad(plain.square().sum(), known),
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_an_epoch_visits_every_item_once() -> None:
    pairs, _ = planted_lookup(100)
    pairs = changed(pairs, "x", tokens=pairs.tokens["x"][:10], index=torch.arange(100) % 10)
    batches = epoch_batches(pairs, torch.arange(20, 100), 32, generator(0))
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(20, 100))
    assert (
        len(pairs.index["x"][batches[0]].unique()) <= 5
    )  # eight items a picture: a batch of 32 sees four or five of them


def test_saved_head_answers_alike(tmp_path) -> None:
    pairs, _ = planted_lookup(50)
    head = make_head("cross_attention", WIDTHS, 4, seed=5, width=32, symmetric=True)
    save_head(head, tmp_path / "head")
    assert torch.equal(predict(load_head(tmp_path / "head"), pairs), predict(head, pairs))
    with pytest.raises(InputError, match="config.json"):
        load_head(tmp_path)


def test_bad_input_says_what_to_do() -> None:
    z, mask = batch()
    pairs, labels = planted_lookup(20)
    head, small = make_head("concat", WIDTHS, 3), make_head("concat", WIDTHS, 4)
    empty, nobody = mask["x"].clone(), torch.zeros(4, dtype=torch.bool)
    empty[2] = False
    train, val = torch.arange(10), torch.arange(10, 20)
    for wrong, message in [
        (lambda: head(z | {"x": z["x"][..., :9]}), "width 10"),
        (lambda: head(z | {"y": z["y"][:3]}), "3 and 4 rows"),
        (lambda: head(z | {"x": z["x"][:, 0]}), r"x\[:, None\]"),
        (lambda: head(z, {"x": empty}), r"first: row 2"),
        (lambda: head(z, {"x": mask["x"].float()}), "bool"),
        (lambda: head(z, {"x": mask["x"][:, :3]}), r"\(4, 7\)"),
        (
            lambda: head(z, present={"x": nobody, "y": ~nobody & (torch.arange(4) != 1)}),
            "without any modality.*row 1",
        ),
        (lambda: head(z | {"sound": z["x"]}), "modality"),
        (lambda: make_head("cross_atention", WIDTHS, 1), "Did you mean 'cross_attention'"),
        (lambda: make_head("concat", {"x": 0}, 1), "positive sizes"),
        (lambda: make_head("concat", {}, 1), "positive sizes"),
        (lambda: make_head("concat", WIDTHS, 2, widht=3), "widht"),
        (lambda: make_head("cross_attention", WIDTHS, 2, heads=3), "divides"),
        (lambda: make_head("cross_attention", WIDTHS, 2, query="text"), "modality that asks"),
        (lambda: make_head("cross_attention", WIDTHS, 2, n_layers=0), "at least one"),
        (lambda: make_head("cross_attention", {"y": 3}, 2), "at least two"),
        *(
            (lambda name=name: make_head(name, {"y": 3}, 2), "at least two")
            for name in ("hybrid", "gated", "q_former", "exchange")
        ),
        (lambda: make_head("late", WIDTHS, 2, rule="mean"), "rule"),
        (lambda: make_head("q_former", WIDTHS, 2, query="text"), "modality that asks"),
        (lambda: make_head("early", WIDTHS, 2, heads=3), "divides"),
        *(
            (
                lambda name=name, options=options: make_head(name, WIDTHS, 2, **options),
                "at least one",
            )
            for name, options in (
                ("early", {"n_layers": 0}),
                ("hybrid", {"n_layers": 0}),
                ("prefix", {"n_layers": 0}),
                ("mamba", {"state": 0}),
                ("bottleneck", {"n_shared": 0}),
                ("q_former", {"n_queries": 0}),
                ("graph", {"rounds": 0}),
            )
        ),
        (
            lambda: train_head(
                small, changed(pairs, "x", index=torch.full((20,), -1)), labels, train, val
            ),
            "x missing in every",
        ),
        (lambda: train_head(head, pairs, labels, train, val), "n_out"),
        (lambda: train_head(small, pairs, labels[:5], train, val), "one class index per item"),
        (lambda: train_head(small, pairs, labels, train, train), "disjoint"),
        (lambda: train_head(small, pairs, labels, train, train[:0]), "0 validation"),
        (lambda: changed(pairs, "x", tokens=pairs.tokens["x"].log()), "finite"),
        (lambda: changed(pairs, "y", index=pairs.index["y"][:3]), "one index of each"),
        (lambda: changed(pairs, "y", index=pairs.index["y"] + 6), "indices into 6"),
        (lambda: without(pairs, "z"), "modality"),
        (lambda: drop_modalities(pairs, 1.5), "between 0 and 1"),
        (lambda: TokenItems({"x": z["x"]}, {"y": torch.arange(4)}), "the same modalities"),
    ]:
        with pytest.raises(InputError, match=message):
            wrong()
