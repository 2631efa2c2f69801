"""Fusion heads: a planted task that separates them, masks, gradients, determinism, wrong input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alignmerge_nb.core import InputError, fix_torchvision, generator
from alignmerge_nb.fusion.base import FusionHead, ProjectedTokens
from alignmerge_nb.fusion.items import (
    TokenItems,
    blank_modality,
    drop_modalities,
    logits_of,
    planted_lookup,
    predict,
    replace_modality,
)
from alignmerge_nb.fusion.registry import (
    HEADS,
    PARAMETER_LIMIT,
    load_head,
    make_head,
    parameter_count,
    save_head,
)
from alignmerge_nb.fusion.sequence import LinearScan, Mamba
from alignmerge_nb.fusion.training import (
    EpochRecord,
    TrainOptions,
    epoch_batches,
    evaluate,
    train_head,
)

QUICK = TrainOptions(epochs=12, batch=250, learning_rate=1e-2)
VARIANTS = [
    *((name, {}) for name in HEADS),
    ("cross_attention", {"query": "x"}),
    ("cross_attention", {"symmetric": True}),
    ("cross_attention", {"n_layers": 2}),
    ("cross_attention", {"symmetric": True, "n_layers": 2, "heads": 2}),
    ("gated", {"symmetric": True}),
    ("late", {"rule": "sum"}),
    ("hybrid", {"rule": "sum"}),
    ("early", {"n_layers": 1}),
    ("bottleneck", {"n_shared": 1, "n_layers": 3}),
    ("q_former", {"query": "x", "n_queries": 2}),
    ("graph", {"rounds": 3}),
    ("mamba", {"n_layers": 3, "state": 4}),
]
every_variant = pytest.mark.parametrize(("name", "options"), VARIANTS)
WIDTHS = {"x": 10, "y": 6}
PRESENT = {
    "x": torch.tensor([True, False, True, True]),
    "y": torch.tensor([True, True, False, True]),
}


def batch(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    "Tokens and masks: four rows of seven x tokens (two masked) and five y tokens (one masked)."
    rng = generator(seed, "test batch")
    x_mask = torch.ones(4, 7, dtype=torch.bool)
    y_mask = torch.ones(4, 5, dtype=torch.bool)
    x_mask[1:, 5:] = False
    y_mask[0, 4:] = False
    x = torch.randn(4, 7, 10, generator=rng)
    y = torch.randn(4, 5, 6, generator=rng)
    return {"x": x, "y": y}, {"x": x_mask, "y": y_mask}


def assert_alike(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def without_gradient(head: FusionHead, projected: ProjectedTokens) -> list[str]:
    "The parameters that neither logits nor penalty depend on."
    (head.combine(*projected).square().sum() + head.penalty(*projected)).backward()
    gradients = {key: parameter.grad for key, parameter in head.named_parameters()}
    return [key for key, gradient in gradients.items() if gradient is None or not gradient.any()]


def train_on_lookup(
    name: str, seed: int = 0, training: TrainOptions = QUICK, **options: object
) -> tuple[FusionHead, float, list[EpochRecord]]:
    "A head, its accuracy on held-out items of the planted look-up, and its history."
    items, labels = planted_lookup(3000, seed)
    train, val, test = torch.arange(3000).split([2000, 500, 500])
    head = make_head(name, WIDTHS, 4, seed=seed, width=32, **options)
    history = train_head(head, items, labels, train, val, training, seed)
    return head, evaluate(head, items, labels, test)[1], history


def test_attention_binds_and_pooling_cannot() -> None:
    "A pool keeps the bag of values: its commonest value is right in about 0.45 of the cases."
    items, labels = planted_lookup(3000)
    commonest = items.tokens["x"][..., 6:].sum(1).argmax(1)  # the best answer from the bag
    ceiling = float((commonest == labels).float().mean())
    cross = train_on_lookup("cross_attention")[1]
    assert cross > 0.97
    for name in ("concat", "average"):
        accuracy = train_on_lookup(name)[1]
        assert accuracy < ceiling + 0.06
        assert accuracy < cross - 0.4


def test_either_side_may_be_the_query() -> None:
    assert train_on_lookup("cross_attention", query="x", n_layers=2)[1] > 0.95
    assert train_on_lookup("cross_attention", symmetric=True)[1] > 0.95


@every_variant
def test_masked_tokens_change_nothing(name: str, options: dict) -> None:
    z, mask = batch()
    garbage = {key: torch.where(mask[key][..., None], z[key], 1e3) for key in z}
    shorter = {"x": z["x"][1:, :5], "y": z["y"][1:]}
    head = make_head(name, WIDTHS, 3, **options)
    with torch.no_grad():
        logits = head(z, mask)
        assert logits.shape == (4, 3)
        assert_alike(logits, head(garbage, mask))
        assert_alike(logits[1:], head(shorter, {"y": mask["y"][1:]}))
        assert (logits - head(z)).abs().amax(1).min() > 1e-4


@every_variant
def test_order_of_tokens_matters_only_to_ordered_heads(name: str, options: dict) -> None:
    z, mask = batch()
    orders = {
        "x": torch.randperm(7, generator=generator(1)),
        "y": torch.randperm(5, generator=generator(2)),
    }
    shuffled = {key: z[key][:, order] for key, order in orders.items()}
    shuffled_mask = {key: mask[key][:, order] for key, order in orders.items()}
    head = make_head(name, WIDTHS, 3, **options)
    with torch.no_grad():
        logits, after = head(z, mask), head(shuffled, shuffled_mask)
    if head.ordered:
        assert (logits - after).abs().amax(1).min() > 1e-5
    else:
        assert_alike(logits, after)


@every_variant
def test_gradient_reaches_every_parameter(name: str, options: dict) -> None:
    z, mask = batch()
    head = make_head(name, WIDTHS, 3, **options)
    assert without_gradient(head, head.project(z, mask, PRESENT)) == []


@every_variant
def test_numbers_in_the_place_of_a_missing_modality_do_not_matter(name: str, options: dict) -> None:
    z, mask = batch()
    garbage = {key: torch.where(PRESENT[key][:, None, None], z[key], torch.nan) for key in z}
    head = make_head(name, WIDTHS, 3, **options)
    with torch.no_grad():
        partial, full = head(z, mask, PRESENT), head(z, mask)
        only_y = head({"y": z["y"][1:2]}, {"y": mask["y"][1:2]})
        assert_alike(partial, head(garbage, mask, PRESENT))
    assert_alike(partial[1:2], only_y)
    assert_alike(partial[[0, 3]], full[[0, 3]])
    assert (partial - full)[1:3].abs().amax(1).min() > 1e-4


@pytest.mark.parametrize("name", HEADS)
def test_two_pictures_and_a_statement(name: str) -> None:
    z, mask = batch()
    tokens = {"left": z["x"], "right": z["x"].flip(0), "y": z["y"]}
    head = make_head(name, {"left": 10, "right": 10, "y": 6}, 3)
    present = {"right": torch.tensor([True, True, False, True])}
    projected = head.project(tokens, {"left": mask["x"], "y": mask["y"]}, present)
    always_present = {"missing_embedding.left", "missing_embedding.y"}
    assert set(without_gradient(head, projected)) <= always_present
    with torch.no_grad():
        assert torch.isfinite(head({"right": z["x"]})).all()


@pytest.mark.parametrize("name", ["late", "graph", "bottleneck"])
def test_masking_heads_leave_a_missing_modality_out(name: str) -> None:
    "Without y the logits are those of a head of the same weights that was built for x alone."
    z, mask = batch()
    both = make_head(name, WIDTHS, 3)
    only = make_head(name, {"x": 10}, 3)
    weights = both.state_dict()
    only.load_state_dict({key: weights[key] for key in only.state_dict()})
    x, x_mask = {"x": z["x"]}, {"x": mask["x"]}
    with torch.no_grad():
        assert_alike(both(x, x_mask), only(x, x_mask))


@pytest.mark.parametrize("name", HEADS)
def test_every_head_has_a_label_and_refuses_unknown_settings(name: str) -> None:
    kind = HEADS[name]
    assert kind.label
    with pytest.raises(TypeError, match="widht"):
        kind(WIDTHS, 2, widht=3)
    with pytest.raises(InputError, match="widht"):
        make_head(name, WIDTHS, 2, widht=3)
    for settings in kind.search_space:
        make_head(name, WIDTHS, 2, **settings)


def test_labels_are_distinct() -> None:
    assert len({kind.label for kind in HEADS.values()}) == len(HEADS)


@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
def test_scan_is_the_recurrence(length: int) -> None:
    rng = generator(0, "scan")
    a = torch.rand(2, length, 3, dtype=torch.float64, generator=rng).requires_grad_()
    b = torch.randn(2, length, 3, dtype=torch.float64, generator=rng).requires_grad_()
    weight = torch.randn(2, length, 3, dtype=torch.float64, generator=rng)
    states = [torch.zeros(2, 3, dtype=torch.float64)]
    for t in range(length):
        states.append(a[:, t] * states[-1] + b[:, t])
    loop = torch.stack(states[1:], 1)
    scan = LinearScan.apply(a, b)
    torch.testing.assert_close(scan, loop)
    ours = torch.autograd.grad((scan * weight).sum(), (a, b))
    expected = torch.autograd.grad((loop * weight).sum(), (a, b))
    torch.testing.assert_close(ours, expected)


def test_mamba_takes_the_weights_of_the_reference() -> None:
    fix_torchvision()
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = MambaConfig(
        hidden_size=40, state_size=6, conv_kernel=3, expand=2, time_step_rank=3, use_bias=False
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = MambaMixer(config, 0).eval()
        ours = Mamba(40, state=6, kernel=3)
        h = torch.randn(2, 19, 40)
    ours.load_state_dict(reference.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(h, torch.ones(2, 19, dtype=torch.bool)), reference(h))


@pytest.mark.parametrize("name", HEADS)
def test_light_at_the_widths_of_real_encoders(name: str) -> None:
    "ResNet-50, BERT and the answers of VQA v2. DecAlign has two projections of each modality."
    widths, n_out = {"x": 2048, "y": 768}, 3129
    width = 96 if name == "dec_align" else 192
    assert parameter_count(make_head(name, widths, n_out, width=width)) < PARAMETER_LIMIT
    with pytest.raises(InputError, match="fewer than 2,000,000"):
        make_head(name, widths, n_out, width=2048)


@pytest.mark.parametrize("name", HEADS)
def test_seed_decides_everything(name: str) -> None:
    state = torch.random.get_rng_state()
    brief = TrainOptions(epochs=1, batch=500)
    head, _, history = train_on_lookup(name, 0, brief)
    same, _, same_history = train_on_lookup(name, 0, brief)
    other, *_ = train_on_lookup(name, 1, brief)
    assert torch.equal(state, torch.random.get_rng_state())
    weights = head.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in same.state_dict().items())
    assert history[0]["val_loss"] == same_history[0]["val_loss"]
    assert not torch.equal(weights["inputs.x.weight"], other.state_dict()["inputs.x.weight"])


def test_training_keeps_the_best_epoch_and_stops_early() -> None:
    "With random labels there is nothing to learn, so validation cannot improve for long."
    items, _ = planted_lookup(600)
    noise = torch.randint(4, (600,), generator=generator(0, "noise"))
    head = make_head("cross_attention", WIDTHS, 4)
    train, val = torch.arange(400), torch.arange(400, 600)
    options = TrainOptions(epochs=40, batch=100, patience=3)
    history = train_head(head, items, noise, train, val, options)
    assert len(history) < 40
    assert evaluate(head, items, noise, val)[1] == max(row["val_accuracy"] for row in history)


def test_shared_sequences_give_the_same_logits_and_gradients() -> None:
    z, mask = batch()
    index = {"x": torch.tensor([0, 0, 3, 1, 1, 2]), "y": torch.tensor([1, 2, 0, 0, 3, 3])}
    has_y = torch.tensor([True, False, True, True, True, True])
    items = TokenItems(z, index | {"y": torch.where(has_y, index["y"], -1)}, mask)
    head = make_head("cross_attention", WIDTHS, 3, symmetric=True)
    shared = logits_of(head, items, torch.arange(6))
    copied = head(
        {key: z[key][index[key]] for key in z},
        {key: mask[key][index[key]] for key in z},
        {"y": has_y},
    )
    assert_alike(shared, copied)
    used = [value for key, value in head.named_parameters() if key != "missing_embedding.x"]
    ours = torch.autograd.grad(shared.square().sum(), used)
    expected = torch.autograd.grad(copied.square().sum(), used)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-3)


def test_an_epoch_visits_every_item_once() -> None:
    "Eight items a picture: a batch of 32 has four or five pictures."
    items, _ = planted_lookup(100)
    x = items.tokens["x"][:10]
    items = replace_modality(items, "x", tokens=x, index=torch.arange(100) % 10)
    batches = epoch_batches(items, torch.arange(20, 100), 32, generator(0))
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(20, 100))
    assert len(items.index["x"][batches[0]].unique()) <= 5


def test_saved_head_gives_the_same_logits(tmp_path: Path) -> None:
    items, _ = planted_lookup(50)
    head = make_head("cross_attention", WIDTHS, 4, seed=5, width=32, symmetric=True)
    save_head(head, tmp_path / "head")
    assert torch.equal(predict(load_head(tmp_path / "head"), items), predict(head, items))
    with pytest.raises(InputError, match="config.json"):
        load_head(tmp_path)
    with pytest.raises(InputError, match="make_head"):
        save_head(HEADS["concat"](WIDTHS, 4), tmp_path / "direct")


def test_a_wrong_setting_names_what_to_do() -> None:
    for name, widths, options, message in [
        ("cross_atention", WIDTHS, {}, "Did you mean 'cross_attention'"),
        ("concat", {"x": 0}, {}, "positive sizes"),
        ("concat", {}, {}, "positive sizes"),
        ("concat", WIDTHS, {"widht": 3}, "widht"),
        ("cross_attention", WIDTHS, {"heads": 3}, "divides"),
        ("early", WIDTHS, {"heads": 3}, "divides"),
        ("cross_attention", WIDTHS, {"query": "text"}, "query modality"),
        ("q_former", WIDTHS, {"query": "text"}, "query modality"),
        ("align_mamba", WIDTHS, {"anchor": "text"}, "anchor modality"),
        ("late", WIDTHS, {"rule": "mean"}, "rule"),
        ("mixup_transport", WIDTHS, {"share": 2.0}, "between 0 and 1"),
        *(
            (name, {"y": 3}, {}, "at least two")
            for name in ("cross_attention", "hybrid", "gated", "q_former", "exchange")
        ),
        ("cross_attention", WIDTHS, {"n_layers": 0}, "at least one"),
        ("early", WIDTHS, {"n_layers": 0}, "at least one"),
        ("hybrid", WIDTHS, {"n_layers": 0}, "at least one"),
        ("prefix", WIDTHS, {"n_layers": 0}, "at least one"),
        ("mamba", WIDTHS, {"state": 0}, "at least one"),
        ("bottleneck", WIDTHS, {"n_shared": 0}, "at least one"),
        ("q_former", WIDTHS, {"n_queries": 0}, "at least one"),
        ("graph", WIDTHS, {"rounds": 0}, "at least one"),
    ]:
        with pytest.raises(InputError, match=message):
            make_head(name, widths, 2, **options)


def test_a_wrong_batch_names_what_to_do() -> None:
    z, mask = batch()
    head = make_head("concat", WIDTHS, 3)
    empty = mask["x"].clone()
    empty[2] = False
    nowhere = torch.zeros(4, dtype=torch.bool)
    all_but_row_1 = torch.arange(4) != 1
    for tokens, masks, present, message in [
        (z | {"x": z["x"][..., :9]}, {}, {}, "width 10"),
        (z | {"y": z["y"][:3]}, {}, {}, "3 and 4 rows"),
        (z | {"x": z["x"][:, 0]}, {}, {}, r"x\[:, None\]"),
        (z, {"x": empty}, {}, r"first: row 2"),
        (z, {"x": mask["x"].float()}, {}, "bool"),
        (z, {"x": mask["x"][:, :3]}, {}, r"\(4, 7\)"),
        (z, {}, {"x": nowhere, "y": all_but_row_1}, "without any modality.*row 1"),
        (z | {"sound": z["x"]}, {}, {}, "modality"),
    ]:
        with pytest.raises(InputError, match=message):
            head(tokens, masks, present)


def test_wrong_items_name_what_to_do() -> None:
    items, _ = planted_lookup(20)
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: replace_modality(items, "x", tokens=items.tokens["x"].log()), "finite"),
        (lambda: replace_modality(items, "y", index=items.index["y"][:3]), "one index of each"),
        (lambda: replace_modality(items, "y", index=items.index["y"] + 6), "indices into 6"),
        (lambda: blank_modality(items, "z"), "modality"),
        (lambda: drop_modalities(items, 1.5), "between 0 and 1"),
        (lambda: TokenItems({"x": items.tokens["x"]}, {"y": torch.arange(20)}), "the same modal"),
    ]
    for call, message in wrong:
        with pytest.raises(InputError, match=message):
            call()


def test_training_that_cannot_work_names_what_to_do() -> None:
    items, labels = planted_lookup(20)
    no_x = replace_modality(items, "x", index=torch.full((20,), -1))
    train, val = torch.arange(10), torch.arange(10, 20)
    for n_out, arguments, message in [
        (4, (no_x, labels, train, val), "x missing in every"),
        (3, (items, labels, train, val), "n_out"),
        (4, (items, labels[:5], train, val), "one class index per item"),
        (4, (items, labels, train, train), "disjoint"),
        (4, (items, labels, train, train[:0]), "0 validation"),
    ]:
        with pytest.raises(InputError, match=message):
            train_head(make_head("concat", WIDTHS, n_out), *arguments)
