"""Statements: official files and scores, broken files, and derived tasks.

Scores are held against numbers worked out by hand. No single input of a derived task tells the
answer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from alignmerge_nb.core import InputError, data_home, generator
from alignmerge_nb.data.datasets import SPLITS, Item, load_dataset
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
from alignmerge_nb.fusion.items import TokenItems, logits_of
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
from alignmerge_nb.lab.statements import (
    StatementData,
    judged,
    statement_data,
    text_id,
    text_items,
)
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
    before = path.read_text()
    path.write_text(change(before))
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


def planted_scene(name: str, number: int) -> Item:
    "A picture of which the answers tell colour and shape."
    colour = ("what color is the shape?", COLOURS[number % 8])
    shape = ("what shape is present?", SHAPES[number // 8])
    return Item(name, None, (), "", questions=(colour, shape))


def planted(n: int, start: str = "", seed: int = 0) -> list[Item]:
    "Pictures of random colours and shapes."
    numbers = torch.randint(24, (n,), generator=generator(seed, "planted", start)).tolist()
    return [planted_scene(f"{start}{i:03d}", number) for i, number in enumerate(numbers)]


SCENES = {"train": planted(500, "a"), "val": planted(150, "b"), "test": planted(200, "c")}
NAMES = [
    f"{first}{second}"
    for first in ("dog", "cat", "fox", "bear", "crow", "wolf", "deer", "toad")
    for second in ("ling", "kin", "let", "by")
]
GROUPS = {"tuxpaint": ("animals", "plants", "vehicles"), "emoji": ("flags", "objects")}


def planted_stamps(start: str) -> list[Item]:
    "Pictures of both sets; their captions differ in one word."
    items = []
    for source, groups in GROUPS.items():
        for number, name in enumerate(NAMES):
            caption = f"A {start}{name}."
            if source == "emoji":
                caption = f"{start}{name}x: thing, other"
            group = f"{source}/{groups[number % len(groups)]}"
            items.append(Item(f"{source}/{start}{name}", None, (caption,), group))
    return items


STAMPS = {
    "train": planted_stamps("big"),
    "val": planted_stamps("old"),
    "test": planted_stamps("red"),
}
PLANTED = {
    "nlvr_shapes": (nlvr_shapes, SCENES, {"train": 60, "val": 9, "test": 30}),
    "nlvr_pictures": (nlvr_pictures, STAMPS, {"train": 60, "val": 9, "test": 30}),
    "entail_shapes": (entail_shapes, SCENES, {"train": 200, "val": 60, "test": 100}),
    "entail_pictures": (entail_pictures, STAMPS, {"train": 64, "val": 40, "test": 64}),
}


def text_of(statement: Statement) -> str:
    return statement.text


def images_of(statement: Statement) -> tuple[str, ...]:
    return statement.images


def check_balance(statements: list[Statement], labels: set[str]) -> None:
    "Every text and every tuple of pictures equally often with each label."
    assert {one.label for one in statements} == labels
    for part in (text_of, images_of):
        counts = Counter((part(one), one.label) for one in statements)
        for value in {part(one) for one in statements}:
            assert len({counts[value, label] for label in labels}) == 1
        assert balance(statements, part) == 0


def check_balanced_and_disjoint(statements: list[Statement]) -> None:
    "Balance within each split; no picture in two splits or twice in a statement."
    labels = {one.label for one in statements}
    pictures = {}
    for split in SPLITS:
        members = [one for one in statements if one.split == split]
        check_balance(members, labels)
        pictures[split] = {image for one in members for image in one.images}
    check_disjoint(pictures)
    assert all(len(set(one.images)) == len(one.images) for one in statements)
    assert len({(one.split, one.id) for one in statements}) == len(statements)


def check_disjoint(sets: dict[str, set[str]]) -> None:
    "No member in two splits."
    for one, other in combinations(sets.values(), 2):
        assert not one & other


def test_balance_sees_what_is_unbalanced():
    pair = [
        Statement("0", ("a",), "x", "True", "test"),
        Statement("1", ("b",), "x", "False", "test"),
    ]
    assert balance(pair, text_of) == 0
    assert balance(pair, images_of) == 1
    assert balance([*pair, replace(pair[0], id="2")], text_of) == 1
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
    statements = make(splits, sizes)
    check_balanced_and_disjoint(statements)
    reversed_splits = {split: items[::-1] for split, items in splits.items()}
    assert statements == make(reversed_splits, sizes)
    assert statements != make(splits, sizes, seed=1)
    with pytest.raises(InputError, match="split"):
        make(splits, {"tset": 3})


def additive(statements: list[Statement], table: dict[str, torch.Tensor]) -> float:
    "Test accuracy of logistic regression on the vectors of pictures and text, side by side."
    from sklearn.linear_model import LogisticRegression

    def inputs_and_labels(split: str) -> tuple[list, list[str]]:
        members = [one for one in statements if one.split == split]
        vectors = [[table[key] for key in (*one.images, one.text)] for one in members]
        inputs = [torch.cat(parts).numpy() for parts in vectors]
        return inputs, [one.label for one in members]

    reader = LogisticRegression(max_iter=200).fit(*inputs_and_labels("train"))
    return reader.score(*inputs_and_labels("test"))


@pytest.mark.parametrize("name", PLANTED)
def test_text_alone_and_pictures_alone_are_at_chance(name):
    make, splits, sizes = PLANTED[name]
    statements = make(splits, sizes)
    chance = 1 / len({one.label for one in statements})
    scores = blind_scores(statements, "test")
    assert set(scores) == {"chance", "majority", "prior", "reader"}
    assert scores == pytest.approx(dict.fromkeys(scores, chance))
    images = {image for one in statements for image in one.images}
    see = {image: torch.randn(8, generator=generator(0, image)) for image in images}
    texts = {one.text for one in statements}
    read = {text: torch.randn(8, generator=generator(0, text)) for text in texts}
    blank = {key: torch.zeros(8) for key in (*see, *read)}
    assert additive(statements, blank | see) == pytest.approx(chance)
    assert additive(statements, blank | read) == pytest.approx(chance)
    if name.startswith("nlvr"):
        # a sum of terms misses one of the four cells of a block
        assert additive(statements, see | read) <= 0.75


def is_true(text: str, left: dict[str, str], right: dict[str, str]) -> bool:
    "Whether a statement holds of two scenes."
    words = text.split()
    named = [word for word in words if word in COLOURS + SHAPES]
    if not named:
        attribute = "shape" if "shape" in text else "colour"
        return ("same" in words) == (left[attribute] == right[attribute])
    if len(named) == 2:
        return named[0] in left.values() and named[1] in right.values()
    shown = sum(named[0] in scene.values() for scene in (left, right))
    return shown == {"neither": 0, "exactly": 1, "both": 2}[words[0]]


def entailment_label(text: str, scene: dict[str, str]) -> str:
    "What a hypothesis is to a scene."
    presupposed, value = [word for word in text.split() if word in COLOURS + SHAPES]
    if presupposed not in scene.values():
        return "neutral"
    holds = (value in scene.values()) != (" not " in text)
    return "entailment" if holds else "contradiction"


def all_scenes(splits: dict[str, list[Item]]) -> dict[str, dict[str, str]]:
    "The attributes of the pictures of all splits."
    return scenes([item for items in splits.values() for item in items])


def check_shapes(splits: dict[str, list[Item]], two: list[Statement], one: list[Statement]) -> None:
    "The labels, read again from texts and attributes."
    known = all_scenes(splits)
    for statement in two:
        left, right = (known[image] for image in statement.images)
        assert str(is_true(statement.text, left, right)) == statement.label
    for statement in one:
        assert entailment_label(statement.text, known[statement.images[0]]) == statement.label


def check_pictures(
    splits: dict[str, list[Item]], two: list[Statement], one: list[Statement]
) -> None:
    "The labels, read again from texts and captions."
    items = {item.id: item for members in splits.values() for item in members}
    phrases = {
        key: noun_phrase(item.texts[0], key.partition("/")[0]) for key, item in items.items()
    }
    for statement in two:
        caption = statement.text.split(" shows ", 1)[1]
        shown = caption in [phrases[image] for image in statement.images]
        assert statement.label == str(shown != statement.text.startswith("neither"))
    entailing = {
        (statement.split, statement.text): statement.images[0]
        for statement in one
        if statement.label == "entailment"
    }
    for statement in one:
        image = statement.images[0]
        described = entailing[statement.split, statement.text]
        if items[described].group != items[image].group:
            assert statement.label == "neutral"
        elif statement.text.endswith(f" is {phrases[image]}"):
            assert statement.label == "entailment"
        else:
            assert statement.label == "contradiction"


def planted_statements(name: str) -> list[Statement]:
    make, splits, sizes = PLANTED[name]
    return make(splits, sizes)


def test_labels_follow_from_the_attributes_and_captions():
    check_shapes(SCENES, planted_statements("nlvr_shapes"), planted_statements("entail_shapes"))
    two, one = planted_statements("nlvr_pictures"), planted_statements("entail_pictures")
    check_pictures(STAMPS, two, one)


def test_the_left_picture_and_the_text_do_not_settle_same():
    same = [one for one in nlvr_shapes(SCENES, {"train": 300}) if one.kind == "same"]
    counts = Counter((one.text, one.images[0], one.label) for one in same)
    assert counts
    for text, image, _ in counts:
        assert counts[text, image, "True"] == counts[text, image, "False"]


def named_word(statement: Statement) -> str:
    return next(word for word in statement.text.split() if word in COLOURS + SHAPES)


@pytest.mark.parametrize("side", [0, 1])
def test_one_picture_and_the_text_do_not_settle_exactly_one(side):
    known = scenes(SCENES["train"])
    counts: Counter[tuple[bool, str]] = Counter()
    for one in nlvr_shapes(SCENES, {"train": 300}):
        if one.text.startswith("exactly"):
            shown = named_word(one) in known[one.images[side]].values()
            counts[shown, one.label] += 1
    for shown in (True, False):  # each about as often with either label
        difference = abs(counts[shown, "True"] - counts[shown, "False"])
        assert difference < 0.25 * counts[shown, "True"]


def test_order_statements_have_the_same_pictures_on_either_side():
    order = [one for one in nlvr_shapes(SCENES, {"train": 90}) if one.kind == "order"]
    counts = Counter((one.text, frozenset(one.images), one.label) for one in order)
    assert counts
    for text, pair, _ in counts:
        assert counts[text, pair, "True"] == counts[text, pair, "False"]


def test_pictures_without_both_facts_or_rivals_are_left_out():
    incomplete = Item("u", None, (), "", questions=(("what color is the shape?", "red"),))
    splits = {"train": [incomplete, *planted(60, "d")]}
    two = nlvr_shapes(splits, {"train": 12})
    one = entail_shapes(splits, {"train": 60})
    assert all("u" not in statement.images for statement in two + one)
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
    captions = {split: [one.caption for one in part] for split, part in captioned(splits).items()}
    assert captions == {"train": ["a frog"], "test": ["a toad"]}
    for text, phrase in (
        ("Look! A frog.", None),
        ("Confetti.", None),
        ("A hat worn by a university student.", None),
        ("The letter b.", "the letter b"),
    ):
        assert noun_phrase(text, "tuxpaint") == phrase
    assert noun_phrase("family: woman, girl: child, girl", "emoji") == "family woman, girl"


def test_files_of_statements(tmp_path):
    statements = nlvr_shapes(SCENES, {"test": 3})
    assert write_statements(tmp_path / "s.jsonl", statements) == 24
    assert read_statements(tmp_path / "s.jsonl") == statements
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


def scene_tokens(scene: dict[str, str]) -> torch.Tensor:
    "Two tokens: the colour and the shape."
    eye = torch.eye(12)
    return torch.stack([eye[COLOURS.index(scene["colour"])], eye[8 + SHAPES.index(scene["shape"])]])


def word_tokens(items: list[Item]) -> torch.Tensor:
    "One token per word of each text."
    words = sorted({word for item in items for word in item.texts[0].split()})
    tokens = torch.zeros(len(items), 14, len(words))
    for i, item in enumerate(items):
        for k, word in enumerate(item.texts[0].split()):
            tokens[i, k, words.index(word)] = 1
    return tokens


def planted_features(
    statements: list[Statement], splits: dict[str, list[Item]]
) -> tuple[SimpleNamespace, SimpleNamespace]:
    "Tokens of all pictures and texts, in another order than the statements."
    known: dict[str, dict[str, str]] = {}
    for items in splits.values():
        known |= dict(sorted(scenes(items).items(), reverse=True))
    pictures = torch.stack([scene_tokens(scene) for scene in known.values()])
    texts = text_items(statements)[::-1]
    tokens = word_tokens(texts)
    keys = [f"{item.id}#0" for item in texts]
    return features(list(known), pictures), features(keys, tokens, tokens.any(2))


def test_statements_are_joined_by_id():
    statements = nlvr_shapes(SCENES, {"train": 12, "val": 3, "test": 3})
    images, texts = planted_features(statements, SCENES)
    data = statement_data(statements, images, texts)
    assert data.vocabulary == ("False", "True")
    tokens, index = data.items.tokens, data.items.index
    assert set(tokens) == {"left", "right", "y"}
    assert tokens["left"] is tokens["right"]
    for i, one in enumerate(statements):
        for side, image in zip(("left", "right"), one.images, strict=True):
            expected = images.values[images.ids.index(image)]
            assert torch.equal(tokens[side][index[side][i]], expected)
        expected = texts.values[texts.ids.index(f"{text_id(one.text)}#0")]
        assert torch.equal(tokens["y"][index["y"][i]], expected)
    rows = torch.cat(list(data.splits.values())).tolist()
    assert sorted(rows) == list(range(len(statements)))


def test_statements_without_features_and_wrong_predictions_are_named():
    statements = nlvr_shapes(SCENES, {"train": 12, "val": 3, "test": 3})
    images, texts = planted_features(statements, SCENES)
    data = statement_data(statements, images, texts)
    few_images = features(list(images.ids[1:])[:-40], images.values[1:-40])
    other_text = features(["q#0"], texts.values[:1])
    about_one = replace(statements[0], images=statements[0].images[:1])
    for wrong, message in (
        (lambda: statement_data(statements, few_images, texts), "pictures without features"),
        (lambda: statement_data(statements, images, other_text), "texts without features"),
        (lambda: statement_data([*statements, about_one], images, texts), "all about two"),
        (lambda: data.rows("tset"), "Did you mean 'test'"),
        (lambda: judged(torch.zeros(3), data, "val"), "one class for each"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()


def test_rare_answers_are_not_learnt_and_not_forgiven():
    labels = {
        "train": ["red", "red", "red", "blue", "blue", "teal"],
        "test": ["red", "teal", "pink"],
    }
    statements = [
        Statement(f"{split}{i}", ("s",), "what?", label, split)
        for split, members in labels.items()
        for i, label in enumerate(members)
    ]
    images = features(["s"], torch.ones(1, 1, 2))
    texts = features([f"{text_id('what?')}#0"], torch.ones(1, 1, 3))
    data = statement_data(statements, images, texts, answers=2)
    assert data.vocabulary == ("blue", "red", "")
    assert data.labels.tolist() == [1, 1, 1, 0, 0, 2, 1, 2, 2]
    assert data.rows("train").tolist() == [0, 1, 2, 3, 4]
    assert judged(torch.tensor([1, 2, 2]), data, "test")["accuracy"] == pytest.approx(1 / 3)


def without_tokens(items: TokenItems, name: str) -> TokenItems:
    "The items with zeros in the place of one modality."
    blank = torch.zeros_like(items.tokens[name])
    return replace(items, tokens={**items.tokens, name: blank})


def head_accuracy(data: StatementData, items: TokenItems, epochs: int) -> float:
    "Test accuracy of a head that is trained on these items."
    head = make_head("concat", items.widths, len(data.vocabulary))
    options = TrainOptions(epochs=epochs, batch=64)
    train_head(head, items, data.labels, data.rows("train"), data.rows("val"), options)
    with torch.no_grad():
        predicted = logits_of(head, items, data.rows("test")).argmax(1)
    return judged(predicted, data, "test")["accuracy"]


def test_a_head_that_sees_both_learns_what_none_can_see_alone():
    statements = entail_shapes(SCENES, {"train": 400, "val": 100, "test": 150})
    data = statement_data(statements, *planted_features(statements, SCENES))
    assert head_accuracy(data, data.items, epochs=30) > 0.45
    for name in ("x", "y"):
        blind = head_accuracy(data, without_tokens(data.items, name), epochs=3)
        assert blind == pytest.approx(1 / 3)


# --- the real sets ---


@cache
def real_statements(name: str) -> list[Statement]:
    return DERIVED[name].make(derived_splits(name))


def pixels(path: Path) -> torch.Tensor:
    "A picture in 27 numbers."
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((3, 3)).tobytes()
    return torch.tensor(list(small), dtype=torch.float32) / 255


@real
@pytest.mark.parametrize("name", DERIVED)
def test_real_derived_tasks_are_balanced_and_labelled_as_defined(name):
    splits = derived_splits(name)
    statements = real_statements(name)
    check_balanced_and_disjoint(statements)
    assert Counter(one.split for one in statements)["train"] > 2000
    assert len(statements) > 4000
    allowed = {split: {item.id for item in items} for split, items in splits.items()}
    assert all(set(one.images) <= allowed[one.split] for one in statements)
    check_labels = check_shapes if name.endswith("shapes") else check_pictures
    two = statements if name.startswith("nlvr") else []
    one = statements if name.startswith("entail") else []
    check_labels(splits, two, one)


@real
@pytest.mark.parametrize("name", ["nlvr_pictures", "entail_pictures"])
def test_real_captions_stay_in_one_split(name):
    texts = {
        split: {normalise(one.text) for one in real_statements(name) if one.split == split}
        for split in SPLITS
    }
    check_disjoint(texts)


@real
@pytest.mark.parametrize("name", DERIVED)
def test_real_derived_tasks_are_at_chance_for_one_side(name):
    statements = real_statements(name)
    scores = blind_scores(statements, "test")
    assert scores == pytest.approx(dict.fromkeys(scores, scores["chance"]))
    test = [one for one in statements if one.split == "test"]
    train = [one for one in statements if one.split == "train"]
    some = test + train[:600]
    paths = {item.id: item.image for items in derived_splits(name).values() for item in items}
    see = {image: pixels(paths[image]) for image in {image for one in some for image in one.images}}
    blank = {one.text: torch.zeros(1) for one in some}
    assert additive(some, blank | see) == pytest.approx(scores["chance"])


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
