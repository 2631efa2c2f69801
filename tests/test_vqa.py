"""The VQA task: scores worked out by hand, derived captions, joins by id, real easy-VQA."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from alignmerge_nb.core import InputError, data_home, generator
from alignmerge_nb.data.datasets import Item, load_dataset
from alignmerge_nb.data.splits import split_items
from alignmerge_nb.features import question_items
from alignmerge_nb.fusion.base import FusionHead, PerModality
from alignmerge_nb.fusion.items import blank_modality, replace_modality
from alignmerge_nb.fusion.registry import make_head
from alignmerge_nb.fusion.training import TrainOptions, train_head
from alignmerge_nb.lab.tasks import (
    COLOURS,
    EASY_VQA_ANSWERS,
    SHAPES,
    TASKS,
    accuracies,
    blind_baselines,
    caption_items,
    caption_pairs,
    derived_caption,
    known_attributes,
    planted_vqa,
    prepare,
    question_kind,
    rotated,
    subsample,
    vqa,
    vqa_correct,
    vqa_data,
)

SPLITS = {
    "train": [
        Item(
            "a",
            None,
            (),
            "",
            questions=(
                ("is there a circle?", "yes"),
                ("what color is the shape?", "red"),
                ("is there not a red shape?", "no"),
            ),
        ),
        Item(
            "b",
            None,
            (),
            "",
            questions=(("is there a circle?", "no"), ("what color is the shape?", "red")),
        ),
    ],
    "val": [Item("c", None, (), "", questions=(("is there a circle?", "yes"),))],
    "test": [
        Item(
            "d",
            None,
            (),
            "",
            questions=(
                ("what color is the shape?", "blue"),
                ("is there not a red shape?", "yes"),
                ("is there a circle?", "yes"),
                ("what is the blue shape?", "circle"),
            ),
        )
    ],
}
ITEMS = [item for part in SPLITS.values() for item in part]


def features(ids: list[str], tokens: int, width: int, masked: bool = False) -> SimpleNamespace:
    "Features whose values tell their id; the last token masked if asked."
    values = torch.stack([torch.randn(tokens, width, generator=generator(0, key)) for key in ids])
    mask = torch.ones(len(ids), tokens, dtype=torch.bool)
    mask[:, -1] = not masked
    return SimpleNamespace(values=values, mask=mask if masked else None, ids=tuple(ids))


def images(ids: str = "dcba") -> SimpleNamespace:
    return features(list(ids), 4, 5)


def questions() -> SimpleNamespace:
    return features([f"{item.id}#0" for item in reversed(question_items(ITEMS))], 3, 6, masked=True)


class Constant(FusionHead):
    "A head that always gives the same answer."

    def __init__(self, answer: str):
        super().__init__({"x": 5, "y": 6}, len(EASY_VQA_ANSWERS), 2)
        self.answer = EASY_VQA_ANSWERS.index(answer)

    def fuse(self, tokens: PerModality, masks: PerModality, present: PerModality) -> Tensor:
        return torch.eye(self.n_out)[[self.answer] * len(tokens["x"])]


def test_scores_worked_out_by_hand() -> None:
    "Training answers: yes, red, no, no, red. Majority: red, the first of the tie no/red."
    data = vqa_data(SPLITS, images(), questions())
    scores = vqa(None, Constant("yes"), data, "test")
    assert scores == {
        "accuracy": 0.5,
        "accuracy_colour": 0.0,
        "accuracy_negated": 1.0,
        "accuracy_yes_no": 1.0,
        "accuracy_shape": 0.0,
        "n": 4.0,
        "chance": 1 / 13,
        "majority": 0.0,
        "prior": pytest.approx(0.25),
    }  # prior: red ✗, no ✗, circle?: yes ✓ (first of a tie), unseen question: red ✗
    assert vqa_correct(
        Constant("circle"), prepare(None, data.items, data.rows("train")), data, "test"
    ).tolist() == [False, False, False, True]


def test_features_are_joined_by_id_not_by_position() -> None:
    one, two = (
        vqa_data(SPLITS, images("abcd"), questions()),
        vqa_data(SPLITS, images("dbca"), questions()),
    )
    assert torch.equal(one.items.tokens["x"], two.items.tokens["x"]) and torch.equal(
        one.items.tokens["x"][3], images("d").values[0]
    )
    asked = {f"{item.id}#0": item.texts[0] for item in question_items(ITEMS)}
    flat = [question for item in ITEMS for question, _ in item.questions]
    assert [asked[questions().ids[row]] for row in one.items.index["y"].tolist()] == flat


def test_facts_follow_from_positive_and_negated_answers() -> None:
    assert known_attributes(
        [("is no triangle present?", "no"), ("is there a teal shape?", "no")]
    ) == {"shape": "triangle"}
    assert (
        derived_caption(
            [
                ("does the image not contain a teal shape?", "no"),
                ("what is the teal shape?", "circle"),
            ]
        )
        == "a teal circle"
    )
    assert (
        derived_caption([("is there not a circle?", "yes"), ("is there a red shape?", "yes")])
        is None
    )
    assert [(item.id, item.texts) for item in caption_items(ITEMS)] == [
        ("a", ("a red circle",)),
        ("d", ("a blue circle",)),
    ]


def test_captions_of_held_out_pictures_are_refused() -> None:
    data = vqa_data(SPLITS, images(), questions())
    x, y = caption_pairs(data, features(["a#0"], 3, 6, masked=True))
    torch.testing.assert_close(x[0], images("a").values[0].mean(0))
    torch.testing.assert_close(y[0], features(["a#0"], 3, 6).values[0, :2].mean(0))
    with pytest.raises(InputError, match="not in the training split"):
        caption_pairs(data, features(["a#0", "d#0"], 3, 6))


def test_statistics_come_from_training_pictures() -> None:
    data = vqa_data(SPLITS, images(), questions())

    def prepared(data):
        return prepare(None, data.items, data.rows("train")).tokens["x"]

    tokens = prepared(data)
    seen = tokens[:2].flatten(0, 1)  # a and b
    torch.testing.assert_close(seen.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std(0), torch.ones(5))
    other = images()
    other.values[0] *= 100  # the test picture
    torch.testing.assert_close(prepared(vqa_data(SPLITS, other, questions()))[:3], tokens[:3])


def test_the_aligner_is_applied_to_every_token_and_not_trained() -> None:
    class Double(nn.Module):
        "A stand-in that maps x linearly to the width of y."

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 6)

        def transform_x(self, x: Tensor) -> Tensor:
            return self.layer(x)

        def transform_y(self, y: Tensor) -> Tensor:
            return y

    data, aligner = vqa_data(SPLITS, images(), questions()), Double()
    tokens = prepare(aligner, data.items, data.rows("train")).tokens
    rows = aligner.layer(data.items.tokens["x"]).detach()
    torch.testing.assert_close(
        tokens["x"],
        (rows - rows[:2].mean((0, 1))) / rows[:2].flatten(0, 1).std(0),
        atol=1e-5,
        rtol=1e-4,
    )
    assert not tokens["x"].requires_grad and tokens["y"][:, -1].abs().sum() == 0


def test_rotation_keeps_lengths_and_angles() -> None:
    data = planted_vqa(40)
    items = prepare(None, data.items, data.rows("train"))
    turned, before = rotated(items, seed=1).tokens, items.tokens
    torch.testing.assert_close(
        turned["x"][0] @ turned["x"][0].T, before["x"][0] @ before["x"][0].T, atol=1e-4, rtol=1e-4
    )
    assert (turned["x"] - before["x"]).abs().mean() > 0.1 and torch.equal(turned["y"], before["y"])


def test_seeing_beats_blind_on_a_planted_task() -> None:
    data = planted_vqa(400, seed=2)
    whole, accuracy = prepare(None, data.items, data.rows("train")), {}
    for name, items in {
        "seeing": whole,
        "blind": blank_modality(whole, "x"),
        "deaf": blank_modality(whole, "y"),
    }.items():
        head = make_head("cross_attention", whole.widths, 13, width=32)
        train_head(
            head,
            items,
            data.answers,
            data.rows("train"),
            data.rows("val"),
            TrainOptions(epochs=20, batch=64),
        )
        accuracy[name] = float(vqa_correct(head, items, data, "test").float().mean())
    prior = blind_baselines(data, "test")["prior"]
    assert (
        accuracy["seeing"] > 0.98 and accuracy["blind"] < prior + 0.05 and accuracy["deaf"] < 0.75
    )


def test_few_is_nested_and_indifferent_to_order() -> None:
    items = [Item(f"{i:03d}", None, (), "") for i in range(50)]
    small, large = subsample(items, 10, seed=3), subsample(items[::-1], 20, seed=3)
    assert {item.id for item in small} < {item.id for item in large} and subsample(
        items, None
    ) == items
    assert subsample(items, 10, seed=4) != small


def test_bad_input_says_what_to_do() -> None:
    data = vqa_data(SPLITS, images(), questions())
    odd = SPLITS | {
        "val": [Item("c", None, (), "", questions=(("what is the red shape?", "hexagon"),))]
    }
    asked = features(
        [f"{item.id}#0" for part in odd.values() for item in question_items(part)], 3, 6
    )
    for wrong, message in [
        (lambda: vqa_data(odd, images(), asked), "hexagon.*outside the vocabulary"),
        (lambda: question_kind("what?", "hexagon"), "hexagon"),
        (lambda: vqa_data(SPLITS, images("abc"), questions()), "1 pictures without features"),
        (lambda: vqa_data(SPLITS | {"val": SPLITS["test"]}, images(), questions()), "two splits"),
        (lambda: vqa_data(SPLITS, images(), features(["q#0"], 3, 6)), "questions without features"),
        (lambda: data.rows("tset"), "Did you mean 'test'"),
        (
            lambda: vqa(None, make_head("concat", {"x": 5, "y": 6}, 4), data, "test"),
            "one per answer",
        ),
        (lambda: accuracies(torch.tensor([True]), []), "equally many"),
        (lambda: subsample(ITEMS, 9), "between 1 and 4"),
        (lambda: replace_modality(data.items, "x", tokens=data.items.tokens["x"] / 0), "finite"),
    ]:
        with pytest.raises(InputError, match=message):
            wrong()
    assert set(TASKS) >= {"vqa"}


@pytest.mark.skipif(
    not (data_home() / "easyvqa" / "manifest.jsonl").is_file(),
    reason="easy-VQA is not fetched: python data_scripts/fetch_easyvqa.py",
)
def test_real_easy_vqa() -> None:
    items = load_dataset("easyvqa")
    splits = split_items(items)
    assert (
        Counter(item.split for item in items) == {"train": 4000, "test": 1000}
        and len(splits["test"]) == 1000
    )
    assert (
        sum(len(item.questions) for item in items if item.split == "train") == 38575
        and sum(len(item.questions) for item in splits["test"]) == 9673
    )
    assert {answer for item in items for _, answer in item.questions} == set(
        EASY_VQA_ANSWERS
    ) and len(question_items(items)) == 107
    captions = caption_items(splits["train"])
    assert len(captions) > 0.7 * len(splits["train"]) and {item.texts[0] for item in captions} <= {
        f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES
    }
    for item in items:  # what the answers say about one picture is consistent
        known = known_attributes(item.questions)
        for question, answer in item.questions:
            if question_kind(question, answer) == "colour" and "colour" in known:
                assert known["colour"] == answer
