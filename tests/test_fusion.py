"""Fusion heads: a planted task that separates them, masks, gradients, determinism and bad input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alignmerge_nb.core import BadInput, generator
from alignmerge_nb.fusion import (HEADS, PARAMETER_LIMIT, FusionHead, TokenPairs, TrainOptions, epoch_batches, evaluate, load_head, logits_of, make_head, parameter_count,
                                  planted_lookup, predict, save_head, train_head)

QUICK = TrainOptions(epochs=12, batch=250, learning_rate=1e-2)
SHAPES = [{}, {"query": "x"}, {"symmetric": True}, {"n_layers": 2}, {"symmetric": True, "n_layers": 2, "heads": 2}]
KINDS = [("concat", {}), ("average", {}), *(("cross_attention", options) for options in SHAPES)]


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    "Four rows of seven x tokens (two masked) and five y tokens (one masked)."
    rng = generator(seed, "test batch")
    x_mask, y_mask = torch.ones(4, 7, dtype=torch.bool), torch.ones(4, 5, dtype=torch.bool)
    x_mask[1:, 5:], y_mask[0, 4:] = False, False
    return torch.randn(4, 7, 10, generator=rng), torch.randn(4, 5, 6, generator=rng), x_mask, y_mask


def trained(name: str, seed: int = 0, **options) -> tuple[FusionHead, float, list[dict[str, float]]]:
    "A head, its accuracy on held-out items of the planted look-up, and its history."
    pairs, labels = planted_lookup(3000, seed)
    head = make_head(name, 10, 6, 4, seed=seed, width=32, **options)
    history = train_head(head, pairs, labels, torch.arange(2000), torch.arange(2000, 2500), QUICK, seed)
    return head, evaluate(head, pairs, labels, torch.arange(2500, 3000))[1], history


def test_attention_binds_and_pooling_cannot() -> None:
    "A pool knows the bag of values: guessing its commonest value is right in about 0.45 of the cases, more is not to be had."
    pairs, labels = planted_lookup(3000)
    bag = pairs.x[..., 6:].sum(1).argmax(1)  # the best answer that the bag allows
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
    zx, zy, x_mask, y_mask = batch()
    head = make_head(name, 10, 6, 3, **options)
    with torch.no_grad():
        logits = head(zx, zy, x_mask, y_mask)
        garbage = head(torch.where(x_mask[..., None], zx, 1e3), torch.where(y_mask[..., None], zy, -1e3), x_mask, y_mask)
        shorter = head(zx[1:, :5], zy[1:], None, y_mask[1:])
        unmasked = head(zx, zy)
    assert logits.shape == (4, 3)
    torch.testing.assert_close(logits, garbage, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[1:], shorter, atol=1e-5, rtol=1e-4)
    assert (logits - unmasked).abs().amax(1).min() > 1e-4


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_order_of_tokens_does_not_matter(name: str, options: dict) -> None:
    zx, zy, x_mask, y_mask = batch()
    a, b = torch.randperm(7, generator=generator(1)), torch.randperm(5, generator=generator(2))
    head = make_head(name, 10, 6, 3, **options)
    with torch.no_grad(): torch.testing.assert_close(head(zx, zy, x_mask, y_mask), head(zx[:, a], zy[:, b], x_mask[:, a], y_mask[:, b]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_gradient_reaches_every_parameter(name: str, options: dict) -> None:
    zx, zy, x_mask, y_mask = batch()
    head = make_head(name, 10, 6, 3, **options)
    head(zx, zy, x_mask, y_mask).square().sum().backward()
    assert [key for key, value in head.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", HEADS)
def test_light_at_the_widths_of_real_encoders(name: str) -> None:
    assert parameter_count(make_head(name, 2048, 768, 3129, width=192)) < PARAMETER_LIMIT  # ResNet-50, BERT, the answers of VQA v2
    with pytest.raises(BadInput, match="fewer than 2,000,000"): make_head(name, 2048, 768, 3129, width=2048)


@pytest.mark.parametrize("name", HEADS)
def test_seed_decides_everything(name: str) -> None:
    state = torch.random.get_rng_state()
    (one, _, history), (two, _, again), (other, *_) = trained(name, 0), trained(name, 0), trained(name, 1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(one.state_dict()[key], value) for key, value in two.state_dict().items())
    assert [row["val_loss"] for row in history] == [row["val_loss"] for row in again]
    assert not torch.equal(one.in_x.weight, other.in_x.weight)


def test_training_keeps_the_best_epoch_and_stops_early() -> None:
    pairs, labels = planted_lookup(600)
    noise = torch.randint(4, (600,), generator=generator(0, "noise"))  # nothing to learn: validation cannot improve for long
    head = make_head("cross_attention", 10, 6, 4)
    val = torch.arange(400, 600)
    history = train_head(head, pairs, noise, torch.arange(400), val, TrainOptions(epochs=40, batch=100, patience=3))
    assert len(history) < 40
    assert evaluate(head, pairs, noise, val)[1] == max(row["val_accuracy"] for row in history)


def test_shared_sequences_give_the_same_logits_and_gradients() -> None:
    zx, zy, x_mask, y_mask = batch()
    index = torch.tensor([0, 0, 3, 1, 1, 2]), torch.tensor([1, 2, 0, 0, 3, 3])
    pairs, head = TokenPairs(zx, zy, *index, x_mask, y_mask), make_head("cross_attention", 10, 6, 3, symmetric=True)
    shared, plain = logits_of(head, pairs, torch.arange(6)), head(zx[index[0]], zy[index[1]], x_mask[index[0]], y_mask[index[1]])
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=1e-4)
    for a, b in zip(torch.autograd.grad(shared.square().sum(), list(head.parameters())), torch.autograd.grad(plain.square().sum(), list(head.parameters()))):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_an_epoch_visits_every_item_once() -> None:
    pairs, _ = planted_lookup(100)
    pairs = replace(pairs, x=pairs.x[:10], x_index=torch.arange(100) % 10)
    batches = epoch_batches(pairs, torch.arange(20, 100), 32, generator(0))
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(20, 100))
    assert len(pairs.x_index[batches[0]].unique()) <= 5  # eight items a picture: a batch of 32 sees four or five of them


def test_saved_head_answers_alike(tmp_path) -> None:
    pairs, _ = planted_lookup(50)
    head = make_head("cross_attention", 10, 6, 4, seed=5, width=32, symmetric=True)
    save_head(head, tmp_path / "head")
    assert torch.equal(predict(load_head(tmp_path / "head"), pairs), predict(head, pairs))
    with pytest.raises(BadInput, match="config.json"): load_head(tmp_path)


def test_bad_input_says_what_to_do() -> None:
    zx, zy, x_mask, _ = batch()
    pairs, labels = planted_lookup(20)
    head, small = make_head("concat", 10, 6, 3), make_head("concat", 10, 6, 4)
    empty = x_mask.clone()
    empty[2] = False
    train, val = torch.arange(10), torch.arange(10, 20)
    for wrong, message in [
        (lambda: head(zx[..., :9], zy), "width 10"), (lambda: head(zx, zy[:3]), "4 rows of zx and 3 of zy"), (lambda: head(zx[:, 0], zy), r"zx\[:, None\]"),
        (lambda: head(zx, zy, empty), r"first: row 2"), (lambda: head(zx, zy, x_mask.float()), "bool"), (lambda: head(zx, zy, x_mask[:, :3]), r"\(4, 7\)"),
        (lambda: make_head("cross_atention", 1, 1, 1), "Did you mean 'cross_attention'"), (lambda: make_head("concat", 0, 1, 1), "positive sizes"),
        (lambda: make_head("concat", 4, 4, 2, widht=3), "widht"), (lambda: make_head("cross_attention", 4, 4, 2, heads=3), "divides"),
        (lambda: make_head("cross_attention", 4, 4, 2, query="text"), "'x'"), (lambda: make_head("cross_attention", 4, 4, 2, n_layers=0), "at least one"),
        (lambda: train_head(head, pairs, labels, train, val), "n_out"), (lambda: train_head(small, pairs, labels[:5], train, val), "one class index per item"),
        (lambda: train_head(small, pairs, labels, train, train), "disjoint"), (lambda: train_head(small, pairs, labels, train, train[:0]), "0 validation"),
        (lambda: replace(pairs, x=pairs.x.log()), "finite"), (lambda: replace(pairs, y_index=pairs.y_index[:3]), "one of each"),
        (lambda: replace(pairs, y_index=pairs.y_index + 6), "indices into 6"), (lambda: pairs.without("z"), "side to blind"),
    ]:
        with pytest.raises(BadInput, match=message): wrong()
