"""Fusion heads: a planted task that separates them, masks, gradients, determinism and bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alignmerge_nb.core import BadInput, generator
from alignmerge_nb.fusion import PARAMETER_LIMIT, FusionHead, parameter_count
from alignmerge_nb.heads import (HEADS, TokenItems, TrainOptions, changed, epoch_batches, evaluate, incomplete, load_head, logits_of, make_head, planted_lookup, predict, save_head,
                                 train_head, without)

QUICK = TrainOptions(epochs=12, batch=250, learning_rate=1e-2)
SHAPES = [{}, {"query": "x"}, {"symmetric": True}, {"n_layers": 2}, {"symmetric": True, "n_layers": 2, "heads": 2}]
KINDS = [("concat", {}), ("average", {}), *(("cross_attention", options) for options in SHAPES)]


WIDTHS = {"x": 10, "y": 6}


def batch(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    "Tokens and masks: four rows of seven x tokens (two masked) and five y tokens (one masked)."
    rng = generator(seed, "test batch")
    x_mask, y_mask = torch.ones(4, 7, dtype=torch.bool), torch.ones(4, 5, dtype=torch.bool)
    x_mask[1:, 5:], y_mask[0, 4:] = False, False
    return {"x": torch.randn(4, 7, 10, generator=rng), "y": torch.randn(4, 5, 6, generator=rng)}, {"x": x_mask, "y": y_mask}


def trained(name: str, seed: int = 0, **options) -> tuple[FusionHead, float, list[dict[str, float]]]:
    "A head, its accuracy on held-out items of the planted look-up, and its history."
    pairs, labels = planted_lookup(3000, seed)
    head = make_head(name, WIDTHS, 4, seed=seed, width=32, **options)
    history = train_head(head, pairs, labels, torch.arange(2000), torch.arange(2000, 2500), QUICK, seed)
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
def test_order_of_tokens_does_not_matter(name: str, options: dict) -> None:
    z, mask = batch()
    a, b = torch.randperm(7, generator=generator(1)), torch.randperm(5, generator=generator(2))
    head = make_head(name, WIDTHS, 3, **options)
    with torch.no_grad(): torch.testing.assert_close(head(z, mask), head({"x": z["x"][:, a], "y": z["y"][:, b]}, {"x": mask["x"][:, a], "y": mask["y"][:, b]}), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_gradient_reaches_every_parameter(name: str, options: dict) -> None:
    z, mask = batch()
    head = make_head(name, WIDTHS, 3, **options)
    head(z, mask, {"x": torch.tensor([True, False, True, True]), "y": torch.tensor([True, True, False, True])}).square().sum().backward()
    assert [key for key, value in head.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", HEADS)
def test_light_at_the_widths_of_real_encoders(name: str) -> None:
    assert parameter_count(make_head(name, {"x": 2048, "y": 768}, 3129, width=192)) < PARAMETER_LIMIT  # ResNet-50, BERT, the answers of VQA v2
    with pytest.raises(BadInput, match="fewer than 2,000,000"): make_head(name, {"x": 2048, "y": 768}, 3129, width=2048)


@pytest.mark.parametrize("name", HEADS)
def test_seed_decides_everything(name: str) -> None:
    state = torch.random.get_rng_state()
    (one, _, history), (two, _, again), (other, *_) = trained(name, 0), trained(name, 0), trained(name, 1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(one.state_dict()[key], value) for key, value in two.state_dict().items())
    assert [row["val_loss"] for row in history] == [row["val_loss"] for row in again]
    assert not torch.equal(one.inputs["x"].weight, other.inputs["x"].weight)


def test_training_keeps_the_best_epoch_and_stops_early() -> None:
    pairs, labels = planted_lookup(600)
    noise = torch.randint(4, (600,), generator=generator(0, "noise"))  # nothing to learn: validation cannot improve for long
    head = make_head("cross_attention", WIDTHS, 4)
    val = torch.arange(400, 600)
    history = train_head(head, pairs, noise, torch.arange(400), val, TrainOptions(epochs=40, batch=100, patience=3))
    assert len(history) < 40
    assert evaluate(head, pairs, noise, val)[1] == max(row["val_accuracy"] for row in history)


def test_shared_sequences_give_the_same_logits_and_gradients() -> None:
    z, mask = batch()
    index = torch.tensor([0, 0, 3, 1, 1, 2]), torch.tensor([1, 2, 0, 0, 3, 3])
    index, lacks = dict(zip(z, index)), torch.tensor([False, True, False, False, False, False])
    items, head = TokenItems(z, index | {"y": torch.where(lacks, -1, index["y"])}, mask), make_head("cross_attention", WIDTHS, 3, symmetric=True)
    shared, plain = logits_of(head, items, torch.arange(6)), head({key: z[key][index[key]] for key in z}, {key: mask[key][index[key]] for key in z}, {"y": ~lacks})
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=1e-4)
    known = [value for key, value in head.named_parameters() if key != "absent.x"]
    for a, b in zip(torch.autograd.grad(shared.square().sum(), known), torch.autograd.grad(plain.square().sum(), known)):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_an_epoch_visits_every_item_once() -> None:
    pairs, _ = planted_lookup(100)
    pairs = changed(pairs, "x", tokens=pairs.tokens["x"][:10], index=torch.arange(100) % 10)
    batches = epoch_batches(pairs, torch.arange(20, 100), 32, generator(0))
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(20, 100))
    assert len(pairs.index["x"][batches[0]].unique()) <= 5  # eight items a picture: a batch of 32 sees four or five of them


def test_saved_head_answers_alike(tmp_path) -> None:
    pairs, _ = planted_lookup(50)
    head = make_head("cross_attention", WIDTHS, 4, seed=5, width=32, symmetric=True)
    save_head(head, tmp_path / "head")
    assert torch.equal(predict(load_head(tmp_path / "head"), pairs), predict(head, pairs))
    with pytest.raises(BadInput, match="config.json"): load_head(tmp_path)


def test_bad_input_says_what_to_do() -> None:
    z, mask = batch()
    pairs, labels = planted_lookup(20)
    head, small = make_head("concat", WIDTHS, 3), make_head("concat", WIDTHS, 4)
    empty, nobody = mask["x"].clone(), torch.zeros(4, dtype=torch.bool)
    empty[2] = False
    train, val = torch.arange(10), torch.arange(10, 20)
    for wrong, message in [
        (lambda: head(z | {"x": z["x"][..., :9]}), "width 10"), (lambda: head(z | {"y": z["y"][:3]}), "3 and 4 rows"), (lambda: head(z | {"x": z["x"][:, 0]}), r"x\[:, None\]"),
        (lambda: head(z, {"x": empty}), r"first: row 2"), (lambda: head(z, {"x": mask["x"].float()}), "bool"), (lambda: head(z, {"x": mask["x"][:, :3]}), r"\(4, 7\)"),
        (lambda: head(z, present={"x": nobody, "y": ~nobody & (torch.arange(4) != 1)}), "without any modality.*row 1"), (lambda: head(z | {"sound": z["x"]}), "modality"),
        (lambda: make_head("cross_atention", WIDTHS, 1), "Did you mean 'cross_attention'"), (lambda: make_head("concat", {"x": 0}, 1), "positive sizes"), (lambda: make_head("concat", {}, 1), "positive sizes"),
        (lambda: make_head("concat", WIDTHS, 2, widht=3), "widht"), (lambda: make_head("cross_attention", WIDTHS, 2, heads=3), "divides"),
        (lambda: make_head("cross_attention", WIDTHS, 2, query="text"), "modality that asks"), (lambda: make_head("cross_attention", WIDTHS, 2, n_layers=0), "at least one"),
        (lambda: make_head("cross_attention", {"y": 3}, 2), "at least two"), (lambda: train_head(small, changed(pairs, "x", index=torch.full((20,), -1)), labels, train, val), "x missing in every"),
        (lambda: train_head(head, pairs, labels, train, val), "n_out"), (lambda: train_head(small, pairs, labels[:5], train, val), "one class index per item"),
        (lambda: train_head(small, pairs, labels, train, train), "disjoint"), (lambda: train_head(small, pairs, labels, train, train[:0]), "0 validation"),
        (lambda: changed(pairs, "x", tokens=pairs.tokens["x"].log()), "finite"), (lambda: changed(pairs, "y", index=pairs.index["y"][:3]), "one index of each"),
        (lambda: changed(pairs, "y", index=pairs.index["y"] + 6), "indices into 6"), (lambda: without(pairs, "z"), "modality"), (lambda: incomplete(pairs, 1.5), "between 0 and 1"),
        (lambda: TokenItems({"x": z["x"]}, {"y": torch.arange(4)}), "the same modalities"),
    ]:
        with pytest.raises(BadInput, match=message): wrong()
