"""Statements: official files and scores against numbers worked out by hand, files that are broken in every field, and derived tasks of which no single input knows the answer."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from alignmerge_nb.core import InputError, data_home, generator
from alignmerge_nb.data.datasets import Item, load_dataset
from alignmerge_nb.data.splits import normalise, split_items
from alignmerge_nb.data.vqa import (
    OFFICIAL,
    Statement,
    load_statements,
    normalise_answer,
    official_pictures,
    statement_scores,
    vqa2_accuracy,
)
from alignmerge_nb.fusion.items import logits_of
from alignmerge_nb.fusion.registry import make_head
from alignmerge_nb.fusion.training import TrainOptions, train_head
from alignmerge_nb.lab.derived import (
    DERIVED,
    balance,
    blind_scores,
    block,
    captioned,
    derive,
    derived_splits,
    entail_pictures,
    entail_shapes,
    matchings,
    nlvr_pictures,
    nlvr_shapes,
    noun_phrase,
    read_statements,
    scenes,
    write_statements,
)
from alignmerge_nb.lab.statements import judged, statement_data, text_id, text_items
from alignmerge_nb.lab.tasks import COLOURS, SHAPES

SETS = {"easyvqa", "emoji", "tuxpaint"}
real = pytest.mark.skipif(
    not all((data_home() / name / "manifest.jsonl").is_file() for name in SETS),
    reason="easy-VQA, emoji or Tux Paint is not fetched: python data_scripts/fetch_all.py",
)


# --- miniature official files, with the fields that the real ones have ---


def ten(*texts: str) -> list[dict]:
    "The answers of ten people: the last text for all that are left."
    return [
        {"answer": text, "answer_confidence": "yes", "answer_id": place}
        for place, text in enumerate((*texts, *[texts[-1]] * (10 - len(texts))), 1)
    ]


def questions() -> dict:
    return {
        "info": {"description": "VQA v2.0", "version": "2.0"},
        "task_type": "Open-Ended",
        "data_type": "mscoco",
        "license": {"name": "CC BY 4.0"},
        "data_subtype": "val2014",
        "questions": [
            {"image_id": 42, "question": "What color is the dog?", "question_id": 42001},
            {"image_id": 73, "question": "How many dogs?", "question_id": 73000},
        ],
    }


def annotations() -> dict:
    one = {
        "question_type": "what color",
        "multiple_choice_answer": "brown",
        "answers": ten("brown", "tan", "brown", "brown", "light brown"),
        "image_id": 42,
        "answer_type": "other",
        "question_id": 42001,
    }
    two = {
        "question_type": "how many",
        "multiple_choice_answer": "2",
        "answers": ten("2", "two", ""),
        "image_id": 73,
        "answer_type": "number",
        "question_id": 73000,
    }
    return {
        "info": {},
        "data_type": "mscoco",
        "data_subtype": "val2014",
        "license": {},
        "annotations": [two, one],
    }


def gqa() -> dict:
    return {
        "05451384": {
            "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (2486325)"}],
            "entailed": [],
            "equivalent": ["05451384"],
            "question": "Is the sky dark?",
            "imageId": "2382986",
            "isBalanced": True,
            "groups": {"global": None, "local": "06-sky_dark"},
            "answer": "yes",
            "semanticStr": "select: sky",
            "annotations": {},
            "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
            "fullAnswer": "Yes, the sky is dark.",
        }
    }


def nlvr2() -> list[dict]:
    return [
        {
            "validation": {"4": "True"},
            "sentence": "The right image contains two dogs.",
            "left_url": "https://a.invalid/l.jpg",
            "label": str(pair in (0, 3)),
            "identifier": f"dev-850-{pair}-{sentence}",
            "writer": "0",
            "synset": "dingo",
            "right_url": "https://a.invalid/r.jpg",
            "query": "dogs",
        }
        for sentence in (0, 1)
        for pair in range(4)
    ]


def snli_ve() -> list[dict]:
    return [
        {
            "Flickr30K_ID": "2407214681",
            "annotator_labels": [label] * 5,
            "captionID": "2407214681.jpg#3",
            "gold_label": label,
            "pairID": f"2407214681.jpg#3r1{label[0]}",
            "sentence1": "Two men on a roof.",
            "sentence1_binary_parse": "",
            "sentence1_parse": "",
            "sentence2": "Men are outside.",
            "sentence2_binary_parse": "",
            "sentence2_parse": "",
        }
        for label in ("entailment", "neutral", "contradiction")
    ]


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


FILES = {
    "vqa2": {
        "v2_OpenEnded_mscoco_val2014_questions.json": lambda: json.dumps(questions()),
        "v2_mscoco_val2014_annotations.json": lambda: json.dumps(annotations()),
    },
    "gqa": {"val_balanced_questions.json": lambda: json.dumps(gqa())},
    "nlvr2": {"dev.json": lambda: lines(nlvr2())},
    "snli_ve": {"snli_ve_dev.jsonl": lambda: lines(snli_ve())},
}


@pytest.fixture
def home(tmp_path) -> Path:
    "The miniature sets on disk."
    for name, files in FILES.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content(), encoding="utf-8")
    return tmp_path


def test_official_files_are_read(home):
    dog, count = load_statements("vqa2", "val", home)
    assert dog == Statement(
        "42001",
        ("COCO_val2014_000000000042",),
        "What color is the dog?",
        "brown",
        "val",
        kind="other",
        answers=tuple(one["answer"] for one in annotations()["annotations"][1]["answers"]),
    )
    assert (count.label, count.answers.count(""), count.kind) == ("2", 8, "number")
    assert load_statements("gqa", "val", home) == [
        Statement("05451384", ("2382986",), "Is the sky dark?", "yes", "val", kind="verify")
    ]
    dogs = load_statements("nlvr2", "val", home)
    assert (
        len(dogs) == 8
        and {one.group for one in dogs} == {"dev-850--0", "dev-850--1"}
        and dogs[1].images == ("dev-850-1-img0", "dev-850-1-img1")
    )
    assert [one.label for one in load_statements("snli_ve", "val", home)] == [
        "entailment",
        "neutral",
        "contradiction",
    ]


def test_pictures_are_found_where_their_scripts_put_them(home):
    for name, file in (
        ("vqa2", "coco/val2014/COCO_val2014_000000000042.jpg"),
        ("gqa", "gqa/images/2382986.jpg"),
        ("nlvr2", "nlvr2/images/dev-850-0-img0.png"),
        ("snli_ve", "flickr30k/flickr30k-images/2407214681.jpg"),
    ):
        one = load_statements(name, "val", home)[:1]
        with pytest.raises(InputError, match=file.replace(".", "[.]")):
            official_pictures(name, one, home)
        for image in one[0].images:
            path = home / file.replace("img0", image[-4:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        assert [item.id for item in official_pictures(name, one, home)] == list(one[0].images)


BROKEN = [  # set, file, what is done to its content, what the message names
    ("vqa2", "questions", lambda text: text[:-20], "questions.json: no JSON"),
    (
        "vqa2",
        "questions",
        lambda text: text.replace('"questions"', '"question"'),
        "the field 'questions' is missing",
    ),
    (
        "vqa2",
        "questions",
        lambda text: text.replace('"question_id": 73000', '"question_id": "73000"'),
        "questions.json, question 1: the field 'question_id' is a str",
    ),
    (
        "vqa2",
        "questions",
        lambda text: text.replace("73000", "73001"),
        "question 1: the field 'question_id' is 73001, without annotation",
    ),
    (
        "vqa2",
        "questions",
        lambda text: text.replace("How many dogs?", " "),
        "question 1: the field 'question' is empty",
    ),
    (
        "vqa2",
        "annotations",
        lambda text: text.replace('"multiple_choice_answer": "brown", ', ""),
        "annotations.json, annotation 1: the field 'multiple_choice_answer' is missing",
    ),
    (
        "vqa2",
        "annotations",
        lambda text: text.replace('"answer": "tan"', '"answer": null'),
        "annotation 1: the field 'answers' with 9 answers",
    ),
    (
        "vqa2",
        "annotations",
        lambda text: text.replace("42001", "73000"),
        "annotation 1: the field 'question_id' is 73000 again",
    ),
    ("gqa", "", lambda text: "[]", "val_balanced_questions.json: no JSON object"),
    (
        "gqa",
        "",
        lambda text: text.replace('"imageId"', '"image"'),
        "question '05451384': the field 'imageId' is missing",
    ),
    (
        "gqa",
        "",
        lambda text: text.replace('"structural"', '"structure"'),
        "'05451384', types: the field 'structural' is missing",
    ),
    ("gqa", "", lambda text: "{}", "no statement in 'gqa', val"),
    (
        "nlvr2",
        "",
        lambda text: text.replace("dev-850-2-0", "dev-850-2"),
        "dev.json, line 3: the field 'identifier' is 'dev-850-2'",
    ),
    (
        "nlvr2",
        "",
        lambda text: text.replace('"label": "True"', '"label": true', 1),
        "line 1: the field 'label' is a bool",
    ),
    (
        "nlvr2",
        "",
        lambda text: text.replace('"label": "True"', '"label": "yes"', 1),
        "line 1: the field 'label' is 'yes'",
    ),
    ("nlvr2", "", lambda text: text[:-9], "line 8: no JSON"),
    (
        "snli_ve",
        "",
        lambda text: text.replace('"gold_label": "neutral"', '"gold_label": "-"'),
        "snli_ve_dev.jsonl, line 2: the field 'gold_label' is '-'",
    ),
    (
        "snli_ve",
        "",
        lambda text: text.replace("Men are outside.", ""),
        "line 1: the field 'sentence2' is empty",
    ),
    (
        "snli_ve",
        "",
        lambda text: text.replace('"Flickr30K_ID"', '"image"'),
        "line 1: the field 'Flickr30K_ID' is missing",
    ),
    ("snli_ve", "", lambda text: "7\n", "line 1: no JSON object"),
]


@pytest.mark.parametrize("name, file, change, message", BROKEN)
def test_broken_files_name_file_place_and_field(home, name, file, change, message):
    path = next(path for path in (home / name).iterdir() if file in path.name)
    path.write_text(change(before := path.read_text()))
    assert path.read_text() != before
    with pytest.raises(InputError, match=re.escape(message)):
        load_statements(name, "val", home)


def test_what_is_not_there_is_named(home):
    for wrong, message in (
        (lambda: load_statements("vqa", "val", home), "Did you mean 'vqa2'"),
        (lambda: load_statements("vqa2", "test", home), "one of 'train', 'val'"),
        (
            lambda: load_statements("gqa", "train", home),
            "train_balanced_questions.json.*fetch_gqa.py",
        ),
        (lambda: derive("nlvr"), "nlvr_shapes"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()


# --- official scores ---

ANSWERS = {  # as the official code gives them
    "two": "2",
    "None": "0",
    "Ten!": "10",
    "a": "",
    "The cat and an apple": "cat and apple",
    "yes,": "yes",
    "yes , it is": "yes it is",
    "black/white": "black white",
    "black / white": "black white",
    "black/white (mostly)": "black/white mostly".replace("/", " "),
    "1,000": "1000",
    "1,000-2,000": "10002000",
    "10.5": "10.5",
    "10.": "10",
    "U.S.A.": "usa",
    "3.a": "3a",
    "don't": "don't",
    "dont": "don't",
    "couldnt've": "couldn't've",
    "couldntve": "couldntve",
    "somebody'd": "somebodyd",
    "cant  stop": "can't stop",
    "Hello!World": "hello world",
    "Hello! World": "hello world",
    "t-shirt": "t shirt",
    "t-shirt -": "tshirt",
    "twas": "'twas",
    "$5": "$5",
    "5%": "5%",
    "it's": "it's",
    "one\ttwo": "1 2",
    "": "",
}


def test_answers_are_normalised_as_officially():
    assert {text: normalise_answer(text) for text in ANSWERS} == ANSWERS


def test_vqa_accuracy_worked_out_by_hand():
    agreed, mixed = ["blue"] * 10, ["2"] * 2 + ["two"] + ["three"] * 7
    assert (
        vqa2_accuracy("blue", agreed),
        vqa2_accuracy("Blue", agreed),
        vqa2_accuracy(" blue\n", agreed),
    ) == (1, 0, 1)
    assert vqa2_accuracy("Two.", mixed) == pytest.approx(
        0.9
    )  # three of ten say 2: three times two are left, seven times three
    assert vqa2_accuracy("3", mixed) == 1 and vqa2_accuracy("4", mixed) == 0
    assert [
        vqa2_accuracy("x", ["x"] * k + list("abcdefghij")[: 10 - k]) for k in range(6)
    ] == pytest.approx([0, 0.3, 0.6, 0.9, 1, 1])
    with pytest.raises(InputError, match="at least two"):
        vqa2_accuracy("x", ["x"])


def test_consistency_is_that_of_the_official_script():
    dogs = [
        Statement(
            row["identifier"],
            ("l", "r"),
            row["sentence"],
            row["label"],
            "val",
            "-".join([*row["identifier"].split("-")[:2], "", row["identifier"][-1]]),
        )
        for row in nlvr2()
    ]
    right = [one.label for one in dogs]
    assert statement_scores(right, dogs) == {"accuracy": 1, "macro_f1": 1, "consistency": 1, "n": 8}
    assert (
        statement_scores([*right[:7], "True" if right[7] == "False" else "False"], dogs)[
            "consistency"
        ]
        == 0.5
    )
    assert statement_scores(["True"] * 8, dogs) == {
        "accuracy": 0.5,
        "macro_f1": pytest.approx(1 / 3),
        "consistency": 0,
        "n": 8,
    }
    with pytest.raises(InputError, match="7 predictions for 8"):
        statement_scores(right[:7], dogs)


# --- derived tasks ---


def planted(n: int, start: str = "", seed: int = 0) -> list[Item]:
    "Pictures of which the answers tell colour and shape."
    at = torch.randint(24, (n,), generator=generator(seed, "planted", start)).tolist()
    return [
        Item(
            f"{start}{i:03d}",
            None,
            (),
            "",
            questions=(
                ("what color is the shape?", COLOURS[k % 8]),
                ("what shape is present?", SHAPES[k // 8]),
            ),
        )
        for i, k in enumerate(at)
    ]


SCENES = {"train": planted(500, "a"), "val": planted(150, "b"), "test": planted(200, "c")}
NAMES = [
    f"{first}{second}"
    for first in "dog cat fox bear crow wolf deer toad".split()
    for second in "ling kin let by".split()
]
STAMPS = {
    split: [
        Item(
            f"{source}/{start}{name}",
            None,
            (f"A {start}{name}." if source == "tuxpaint" else f"{start}{name}x: thing, other",),
            f"{source}/{group}",
        )
        for source, groups in (
            ("tuxpaint", ("animals", "plants", "vehicles")),
            ("emoji", ("flags", "objects")),
        )
        for place, name in enumerate(NAMES)
        for group in [groups[place % len(groups)]]
    ]
    for split, start in (("train", "big"), ("val", "old"), ("test", "red"))
}
PLANTED = {
    "nlvr_shapes": (nlvr_shapes, SCENES, {"train": 60, "val": 9, "test": 30}),
    "nlvr_pictures": (nlvr_pictures, STAMPS, {"train": 60, "val": 9, "test": 30}),
    "entail_shapes": (entail_shapes, SCENES, {"train": 200, "val": 60, "test": 100}),
    "entail_pictures": (entail_pictures, STAMPS, {"train": 64, "val": 40, "test": 64}),
}


def balanced_and_disjoint(statements: list[Statement]) -> None:
    "Every text and every tuple of pictures equally often with each label, within each split; no picture in two splits."
    labels = {one.label for one in statements}
    for split in ("train", "val", "test"):
        part = [one for one in statements if one.split == split]
        assert part and {one.label for one in part} == labels
        for look in (lambda one: one.text, lambda one: one.images):
            counts = Counter((look(one), one.label) for one in part)
            assert (
                all(
                    counts[look(one), label] == counts[look(one), one.label]
                    for one in part
                    for label in labels
                )
                and balance(part, look) == 0
            )
    seen = {
        split: {image for one in statements if one.split == split for image in one.images}
        for split in ("train", "val", "test")
    }
    assert not (
        seen["train"] & seen["val"] or seen["train"] & seen["test"] or seen["val"] & seen["test"]
    )
    assert all(len(set(one.images)) == len(one.images) for one in statements) and len(
        {(one.split, one.id) for one in statements}
    ) == len(statements)


def test_balance_sees_what_is_unbalanced():
    pair = [
        Statement("0", ("a",), "x", "True", "test"),
        Statement("1", ("b",), "x", "False", "test"),
    ]
    assert (
        balance(pair, lambda one: one.text) == 0
        and balance(pair, lambda one: one.images) == 1
        and balance([*pair, replace(pair[0], id="2")], lambda one: one.text) == 1
    )
    for texts, pairs in (
        (("x", "x"), ([("a", "b")], [("c", "d")])),
        (("x", "y"), ([("a", "b")], [("a", "b")])),
        (("x", "y"), ([("a", "b")], [])),
    ):
        with pytest.raises(InputError, match="Draw it again"):
            block("b", "test", "k", texts, pairs)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_tasks_are_balanced_seeded_and_independent_of_order(name):
    make, splits, sizes = PLANTED[name]
    made = make(splits, sizes)
    balanced_and_disjoint(made)
    assert made == make(
        {split: part[::-1] for split, part in splits.items()}, sizes
    ) and made != make(splits, sizes, seed=1)
    with pytest.raises(InputError, match="split"):
        make(splits, {"tset": 3})


def additive(statements: list[Statement], table: dict[str, torch.Tensor]) -> float:
    "Test accuracy of logistic regression on the vectors of pictures and text, side by side."
    from sklearn.linear_model import LogisticRegression

    rows = {
        split: [
            torch.cat([table[key] for key in (*one.images, one.text)]).numpy()
            for one in statements
            if one.split == split
        ]
        for split in ("train", "test")
    }
    return (
        LogisticRegression(max_iter=200)
        .fit(rows["train"], [one.label for one in statements if one.split == "train"])
        .score(rows["test"], [one.label for one in statements if one.split == "test"])
    )


@pytest.mark.parametrize("name", PLANTED)
def test_readers_of_the_text_and_lookers_at_the_pictures_are_at_chance(name):
    make, splits, sizes = PLANTED[name]
    made = make(splits, sizes)
    chance, kinds = blind_scores(made, "test")["chance"], Counter(one.label for one in made)
    assert chance == 1 / len(kinds) and blind_scores(made, "test") == pytest.approx(
        dict.fromkeys(("chance", "majority", "prior", "reader"), chance)
    )
    see = {
        image: torch.randn(8, generator=generator(0, image)) for one in made for image in one.images
    }
    read = {one.text: torch.randn(8, generator=generator(0, one.text)) for one in made}
    blank = {key: torch.zeros(8) for key in (*see, *read)}
    assert additive(made, blank | see) == pytest.approx(chance) and additive(
        made, blank | read
    ) == pytest.approx(chance)
    if name.startswith("nlvr"):
        assert (
            additive(made, see | read) <= 0.75
        )  # a sum of terms misses one of the four cells of a block


def true_of(text: str, left: dict[str, str], right: dict[str, str]) -> bool:
    words = text.split()
    named = [word for word in words if word in COLOURS + SHAPES]
    if not named:
        return ("same" in words) == (
            left["shape" if "shape" in text else "colour"]
            == right["shape" if "shape" in text else "colour"]
        )
    if len(named) == 2:
        return named[0] in left.values() and named[1] in right.values()
    return (
        sum(named[0] in side.values() for side in (left, right))
        == {"neither": 0, "exactly": 1, "both": 2}[words[0]]
    )


def told_of(text: str, scene: dict[str, str]) -> str:
    presupposed, says = [word for word in text.split() if word in COLOURS + SHAPES]
    if presupposed not in scene.values():
        return "neutral"
    return "entailment" if (says in scene.values()) != (" not " in text) else "contradiction"


def check_shapes(splits: dict[str, list[Item]], two: list[Statement], one: list[Statement]) -> None:
    "The labels, read again from texts and facts."
    known = {key: found for part in splits.values() for key, found in scenes(part).items()}
    assert all(
        str(true_of(each.text, *(known[image] for image in each.images))) == each.label
        for each in two
    )
    assert all(told_of(each.text, known[each.images[0]]) == each.label for each in one)


def check_pictures(
    splits: dict[str, list[Item]], two: list[Statement], one: list[Statement]
) -> None:
    "The labels, read again from texts and captions."
    known = {
        item.id: (noun_phrase(item.texts[0], item.id.partition("/")[0]), item.group)
        for part in splits.values()
        for item in part
    }
    for each in two:
        caption = each.text.split(" shows ", 1)[1]
        assert each.label == str(
            (caption in [known[image][0] for image in each.images])
            != each.text.startswith("neither")
        )
    for each in one:
        phrase, group = known[each.images[0]]
        entailer = next(
            other
            for other in one
            if other.text == each.text and other.split == each.split and other.label == "entailment"
        )
        same_group = known[entailer.images[0]][1] == group
        assert each.label == (
            "neutral"
            if not same_group
            else "entailment"
            if each.text.endswith(f" is {phrase}")
            else "contradiction"
        )


def test_labels_follow_from_the_facts():
    check_shapes(
        SCENES,
        *(PLANTED[name][0](SCENES, PLANTED[name][2]) for name in ("nlvr_shapes", "entail_shapes")),
    )
    check_pictures(
        STAMPS,
        *(
            PLANTED[name][0](STAMPS, PLANTED[name][2])
            for name in ("nlvr_pictures", "entail_pictures")
        ),
    )


def test_one_picture_and_the_text_do_not_settle_same_and_exactly_one():
    made = [
        one
        for one in nlvr_shapes(SCENES, {"train": 300})
        if one.kind == "same" or one.text.startswith("exactly")
    ]
    known = scenes(SCENES["train"])
    left = Counter((one.text, one.images[0], one.label) for one in made if one.kind == "same")
    assert all(left[text, image, "True"] == left[text, image, "False"] for text, image, _ in left)
    word = lambda one: next(word for word in one.text.split() if word in COLOURS + SHAPES)
    for side in (0, 1):  # the side shows it, or does not: each about as often with either label
        counts = Counter(
            (word(one) in known[one.images[side]].values(), one.label)
            for one in made
            if one.kind == "count"
        )
        assert all(
            abs(counts[shown, "True"] - counts[shown, "False"]) < 0.25 * counts[shown, "True"]
            for shown in (True, False)
        )


def test_order_statements_have_the_same_pictures_on_either_side():
    made = [one for one in nlvr_shapes(SCENES, {"train": 90}) if one.kind == "order"]
    counts = Counter((one.text, frozenset(one.images), one.label) for one in made)
    assert made and all(
        counts[text, pair, "True"] == counts[text, pair, "False"] for text, pair, _ in counts
    )


def test_pictures_without_both_facts_or_rivals_are_left_out():
    lone = [
        Item("u", None, (), "", questions=(("what color is the shape?", "red"),)),
        *planted(60, "d"),
    ]
    assert "u" not in {
        image
        for one in nlvr_shapes({"train": lone}, {"train": 12})
        + entail_shapes({"train": lone}, {"train": 60})
        for image in one.images
    }
    with pytest.raises(InputError, match="no matching"):
        entail_shapes({"train": planted(1, "e")}, {"train": 1})
    with pytest.raises(InputError, match="enough pictures"):
        nlvr_shapes({"train": planted(3, "e")}, {"train": 3})
    with pytest.raises(InputError, match="no matching"):
        matchings([torch.zeros(3, 3, dtype=torch.bool)], generator(0, "none"))


def test_a_caption_stays_in_one_split():
    splits = {
        "train": [Item("tuxpaint/a", None, ("A frog.",), "tuxpaint/animals")],
        "test": [
            Item("emoji/a", None, ("A FROG: face",), "emoji/animals-nature"),
            Item("tuxpaint/b", None, ("A toad.",), "tuxpaint/animals"),
        ],
    }
    assert [one.caption for part in captioned(splits).values() for one in part] == [
        "a frog",
        "a toad",
    ]
    for text, phrase in (
        ("Look! A frog.", None),
        ("Confetti.", None),
        ("A hat worn by a university student.", None),
        ("The letter b.", "the letter b"),
    ):
        assert noun_phrase(text, "tuxpaint") == phrase
    assert noun_phrase("family: woman, girl: child, girl", "emoji") == "family woman, girl"


def test_files_of_statements(tmp_path):
    made = nlvr_shapes(SCENES, {"test": 3})
    assert (
        write_statements(tmp_path / "s.jsonl", made) == 24
        and read_statements(tmp_path / "s.jsonl") == made
    )
    line = (tmp_path / "s.jsonl").read_text().splitlines()[0]
    for wrong, message in (
        ('{"id": "x"}', "'images' is missing"),
        (line.replace('"test"', '"tset"'), "'split' is 'tset'"),
        (line.replace('"kind"', '"sort"'), "the field 'sort'"),
        (re.sub(r'"images": \[.*?\]', '"images": [3]', line), "'images' is [3]"),
        (line[:-1], "no JSON"),
    ):
        (tmp_path / "w.jsonl").write_text(f"{line}\n{wrong}\n")
        with pytest.raises(InputError, match=f"w.jsonl, line 2: .*{re.escape(message)}"):
            read_statements(tmp_path / "w.jsonl")


# --- ready for a head ---


def features(
    keys: list[str], values: torch.Tensor, mask: torch.Tensor | None = None
) -> SimpleNamespace:
    return SimpleNamespace(ids=tuple(keys), values=values, mask=mask)


def material(
    statements: list[Statement], splits: dict[str, list[Item]]
) -> tuple[SimpleNamespace, SimpleNamespace]:
    "Two tokens per picture (its colour, its shape) and one per word, in another order than the statements."
    known = {
        key: found
        for part in splits.values()
        for key, found in sorted(scenes(part).items(), reverse=True)
    }
    pictures = torch.stack(
        [
            torch.stack(
                [
                    torch.eye(12)[COLOURS.index(found["colour"])],
                    torch.eye(12)[8 + SHAPES.index(found["shape"])],
                ]
            )
            for found in known.values()
        ]
    )
    items, words = (
        text_items(statements)[::-1],
        sorted({word for one in statements for word in one.text.split()}),
    )
    spelt = torch.zeros(len(items), 14, len(words))
    for i, item in enumerate(items):
        for k, word in enumerate(item.texts[0].split()):
            spelt[i, k, words.index(word)] = 1
    return features(list(known), pictures), features(
        [f"{item.id}#0" for item in items], spelt, spelt.any(2)
    )


def test_statements_are_joined_by_id():
    made = nlvr_shapes(SCENES, {"train": 12, "val": 3, "test": 3})
    images, texts = material(made, SCENES)
    data = statement_data(made, images, texts)
    assert (
        data.vocabulary == ("False", "True")
        and set(data.items.tokens) == {"left", "right", "y"}
        and data.items.tokens["left"] is data.items.tokens["right"]
    )
    for i, one in enumerate(made):
        for side, image in zip(("left", "right"), one.images):
            assert torch.equal(
                data.items.tokens[side][data.items.index[side][i]],
                images.values[images.ids.index(image)],
            )
        assert torch.equal(
            data.items.tokens["y"][data.items.index["y"][i]],
            texts.values[texts.ids.index(f"{text_id(one.text)}#0")],
        )
    assert sorted(torch.cat(list(data.splits.values())).tolist()) == list(range(len(made)))
    for wrong, message in (
        (
            lambda: statement_data(
                made, features(list(images.ids[1:])[:-40], images.values[1:-40]), texts
            ),
            "pictures without features",
        ),
        (lambda: data.rows("tset"), "Did you mean 'test'"),
        (
            lambda: statement_data(made, images, features(["q#0"], texts.values[:1])),
            "texts without features",
        ),
        (
            lambda: statement_data(
                [*made, replace(made[0], images=made[0].images[:1])], images, texts
            ),
            "all about two",
        ),
        (lambda: judged(torch.zeros(3), data, "val"), "one class for each"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()


def test_rare_answers_are_not_learnt_and_not_forgiven():
    shown = [
        Statement(str(i), ("s",), "what?", label, "train" if i < 6 else "test")
        for i, label in enumerate(
            ["red", "red", "red", "blue", "blue", "teal", "red", "teal", "pink"]
        )
    ]
    data = statement_data(
        shown,
        features(["s"], torch.ones(1, 1, 2)),
        features([f"{text_id('what?')}#0"], torch.ones(1, 1, 3)),
        answers=2,
    )
    assert (data.vocabulary, data.labels.tolist(), data.rows("train").tolist()) == (
        ("blue", "red", ""),
        [1, 1, 1, 0, 0, 2, 1, 2, 2],
        [0, 1, 2, 3, 4],
    )
    assert judged(torch.tensor([1, 2, 2]), data, "test")["accuracy"] == pytest.approx(1 / 3)


def test_a_head_that_sees_both_learns_what_none_can_see_alone():
    made = entail_shapes(SCENES, {"train": 400, "val": 100, "test": 150})
    data = statement_data(made, *material(made, SCENES))
    scores = {}
    for name, blind in (("both", None), ("text", "x"), ("pictures", "y")):
        items = (
            data.items
            if blind is None
            else replace(
                data.items,
                tokens=dict(data.items.tokens)
                | {blind: torch.zeros_like(data.items.tokens[blind])},
            )
        )
        head = make_head("concat", items.widths, len(data.vocabulary))
        train_head(
            head,
            items,
            data.labels,
            data.rows("train"),
            data.rows("val"),
            TrainOptions(epochs=30 if blind is None else 3, batch=64),
        )
        with torch.no_grad():
            scores[name] = judged(
                logits_of(head, items, data.rows("test")).argmax(1), data, "test"
            )["accuracy"]
    assert (
        scores["both"] > 0.45
        and scores["text"] == pytest.approx(1 / 3)
        and scores["pictures"] == pytest.approx(1 / 3)
    )


# --- the real sets ---


@real
@pytest.mark.parametrize("name", DERIVED)
def test_real_derived_tasks(name):
    splits = derived_splits(name)
    made = DERIVED[name][0](splits)
    balanced_and_disjoint(made)
    assert Counter(one.split for one in made)["train"] > 2000 and len(made) > 4000
    allowed = {split: {item.id for item in part} for split, part in splits.items()}
    assert all(set(one.images) <= allowed[one.split] for one in made)
    scores = blind_scores(made, "test")
    assert scores == pytest.approx(dict.fromkeys(scores, scores["chance"]))
    (check_shapes if name.endswith("shapes") else check_pictures)(
        splits, *((made, []) if name.startswith("nlvr") else ([], made))
    )
    if name.endswith("pictures"):
        texts = {
            split: {normalise(one.text) for one in made if one.split == split} for split in allowed
        }
        assert not (
            texts["train"] & texts["test"]
            or texts["train"] & texts["val"]
            or texts["val"] & texts["test"]
        )
    paths = {item.id: item.image for part in splits.values() for item in part}
    few = [one for one in made if one.split == "test"] + [
        one for one in made if one.split == "train"
    ][:600]

    def look(image: str) -> torch.Tensor:
        with Image.open(paths[image]) as picture:
            return (
                torch.tensor(
                    list(picture.convert("RGB").resize((3, 3)).tobytes()), dtype=torch.float32
                )
                / 255
            )

    see = {image: look(image) for image in {image for one in few for image in one.images}}
    assert additive(few, {one.text: torch.zeros(1) for one in few} | see) == pytest.approx(
        scores["chance"]
    )


@real
def test_derived_splits_are_those_of_the_sets():
    assert [item.id for item in derived_splits("entail_shapes")["test"]] == [
        item.id for item in split_items(load_dataset("easyvqa"))["test"]
    ]
    tux = {item.id for item in split_items(load_dataset("tuxpaint"))["test"]}
    assert {
        item.id.removeprefix("tuxpaint/")
        for item in derived_splits("nlvr_pictures")["test"]
        if item.id.startswith("tuxpaint/")
    } == tux


def test_official_sets_have_scripts():
    scripts = Path(__file__).parents[1] / "data_scripts"
    assert all((scripts / f"fetch_{name}.py").is_file() for name in OFFICIAL)
