"""Data sets: loaders, manifests, splits, unpacking; and the real sets where they are fetched."""

from __future__ import annotations

import io
import json
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from alignmerge_nb.core import InputError, data_home
from alignmerge_nb.data.archives import safe_extract
from alignmerge_nb.data.datasets import (
    DATASETS,
    DatasetSpec,
    Item,
    load_dataset,
    register_dataset,
    union,
    write_manifest,
)
from alignmerge_nb.data.splits import duplicate_groups, normalise, split_items

EXPECTED = {
    "prototypes": 1000,
    "emoji": 1646,
    "emoji2d": 1704,
    "tuxpaint": 950,
    "cdda": 2637,
    "openclipart": 1799,
    "easyvqa": 5000,
}  # data_scripts/README.md
fetched = {name: (data_home() / name / "source.json").is_file() for name in EXPECTED}
needs = {
    name: pytest.mark.skipif(
        not here, reason=f"data set {name!r} is not fetched: {DATASETS[name].script}"
    )
    for name, here in fetched.items()
}


def row(id: str, **fields) -> dict:
    "A manifest row."
    return {
        "id": id,
        "image": f"{id}.png",
        "texts": {"en": [f"A {id}."], "de": [f"Ein {id}."]},
        "group": "g",
        "licence": "MIT",
    } | fields


def plant(home: Path, name: str, rows: list[dict]) -> Path:
    "A tiny set on disk."
    for one in rows:
        (home / name / one["image"]).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(home / name / one["image"])
    write_manifest(home / name / "manifest.jsonl", rows)
    return home / name / "manifest.jsonl"


def some_items(count: int = 300, seed: int = 0) -> list[Item]:
    "Items with one or two captions of a small vocabulary: many are shared, spelt differently."
    draw = random.Random(seed)
    spell = (str, str.upper, lambda text: text + "!", lambda text: f"“{text}”")
    return [
        Item(
            f"i{n}",
            None,
            tuple(
                draw.choice(spell)(f"thing {draw.randrange(count * 2)}")
                for _ in range(draw.randint(1, 2))
            ),
            f"g{n % 9}",
            row=n,
        )
        for n in range(count)
    ]


# --- loading ---


def test_a_set_is_loaded_sorted_in_one_language(tmp_path):
    plant(tmp_path, "emoji", [row("b"), row("a", texts={"en": ["An a.", "The a."]})])
    a, b = load_dataset("emoji", home=tmp_path)
    assert (a.id, a.texts, b.texts) == ("a", ("An a.", "The a."), ("A b.",)) and a.image.is_file()
    assert [item.texts for item in load_dataset("emoji", "de", tmp_path)] == [("Ein b.",)]


def test_union_puts_the_sets_name_in_front(tmp_path):
    for name in DATASETS["union"].parts:
        plant(tmp_path, name, [row("x")])
    assert [item.id for item in load_dataset("union", home=tmp_path)] == sorted(
        f"{name}/x" for name in DATASETS["union"].parts
    )
    assert {item.group for item in union(("emoji",), home=tmp_path)} == {"emoji/g"}


@pytest.mark.parametrize(
    "name, message",
    [
        ("emojy", "'emoji'"),
        ("flickr", "'flickr30k'"),
        ("tuxpaint", "fetch_tuxpaint.py"),
        ("coco", "fetch_coco.py"),
        ("union", "fetch_emoji.py"),
    ],
)
def test_an_unknown_or_unfetched_set_is_named(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        load_dataset(name, home=tmp_path)


def test_an_unknown_language_is_named(tmp_path):
    plant(tmp_path, "emoji", [row("a")])
    with pytest.raises(InputError, match="'fr'.*'de', 'en'"):
        load_dataset("emoji", "fr", tmp_path)


def test_a_missing_image_is_named(tmp_path):
    plant(tmp_path, "emoji", [row("a"), row("b")])
    (tmp_path / "emoji/b.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 items .*b\.png"):
        load_dataset("emoji", home=tmp_path)


@pytest.mark.parametrize(
    "line, message",
    [
        ("{broken", "no JSON"),
        ("[]", "not a JSON object"),
        (json.dumps(row("a")), "id 'a' is that of line 1"),
        (json.dumps(row("b#1")), "'#'"),
        (json.dumps(row("b", image="../b.png")), "outside"),
        (json.dumps(row("b", image="/etc/passwd")), "outside"),
        (json.dumps(row("b", texts={"en": []})), "empty"),
        (json.dumps(row("b", split="dev")), "none of"),
        (json.dumps(row("b", image=None)), "either"),
        (json.dumps(row("b", spilt="val")), "'split'"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_number(tmp_path, line, message):
    path = plant(tmp_path, "emoji", [row("a")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"manifest\.jsonl, line 2") as error:
        load_dataset("emoji", home=tmp_path)
    assert message in str(error.value)


def test_captions_with_exotic_line_separators_survive(tmp_path):
    plant(tmp_path, "emoji", [row("a", texts={"en": ["one\u2028two\x85three"]})])
    assert load_dataset("emoji", home=tmp_path)[0].texts == ("one\u2028two\x85three",)


def karpathy(folder: Path, name: str, images: list[tuple[str, str, str]]) -> None:
    "A caption file in Karpathy's format of (filepath, filename, split), and its pictures."
    entries, sentid = [], 0
    for imgid, (filepath, filename, split) in enumerate(images):
        raw = [f"Photograph {imgid} described for the {k}. time." for k in range(5)]
        sentences = [
            {
                "tokens": text.lower().strip(".").split(),
                "raw": text,
                "imgid": imgid,
                "sentid": sentid + k,
            }
            for k, text in enumerate(raw)
        ]
        entry = {
            "sentids": list(range(sentid, sentid + 5)),
            "imgid": imgid,
            "sentences": sentences,
            "split": split,
            "filename": filename,
        }
        entries.append(
            entry | ({"filepath": filepath, "cocoid": 391895 + imgid} if name == "coco" else {})
        )
        path = folder / (filepath if name == "coco" else "flickr30k-images") / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
        sentid += 5
    (folder / f"dataset_{name}.json").write_text(json.dumps({"images": entries, "dataset": name}))


def test_coco_is_read_in_its_official_format(tmp_path):
    karpathy(
        tmp_path / "coco",
        "coco",
        [
            ("val2014", "COCO_val2014_000000391895.jpg", "test"),
            ("val2014", "COCO_val2014_000000060623.jpg", "restval"),
            ("train2014", "COCO_train2014_000000000009.jpg", "train"),
            ("val2014", "COCO_val2014_000000184613.jpg", "val"),
        ],
    )
    items = load_dataset("coco", home=tmp_path)
    parts = split_items(items)
    assert {name: len(part) for name, part in parts.items()} == {"train": 2, "val": 1, "test": 1}
    assert (
        parts["test"][0].id == "COCO_val2014_000000391895"
        and len(parts["test"][0].texts) == 5
        and parts["test"][0].image.parent.name == "val2014"
    )
    with pytest.raises(InputError, match="'en'"):
        load_dataset("coco", "de", tmp_path)


def test_flickr30k_is_read_in_its_official_format(tmp_path):
    karpathy(
        tmp_path / "flickr30k",
        "flickr30k",
        [
            ("", "1000092795.jpg", "train"),
            ("", "10002456.jpg", "test"),
            ("", "1000268201.jpg", "val"),
        ],
    )
    items = load_dataset("flickr30k", home=tmp_path)
    assert [len(part) for part in split_items(items, seed=3).values()] == [1, 1, 1] and all(
        len(item.texts) == 5 for item in items
    )
    (tmp_path / "flickr30k/flickr30k-images/10002456.jpg").unlink()
    with pytest.raises(InputError, match="10002456.jpg"):
        load_dataset("flickr30k", home=tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"split": "dev"}, "'dev'"),
        ({"sentences": []}, "0 captions"),
        ({"filename": None}, "image 1"),
    ],
)
def test_a_wrong_caption_file_is_named(tmp_path, change, message):
    karpathy(tmp_path / "flickr30k", "flickr30k", [("", "1.jpg", "train"), ("", "2.jpg", "test")])
    path = tmp_path / "flickr30k/dataset_flickr30k.json"
    content = json.loads(path.read_text())
    content["images"][1] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        load_dataset("flickr30k", home=tmp_path)


# --- registration ---


@pytest.fixture
def registry():
    "The table of data sets, put back after the test."
    before = dict(DATASETS)
    yield DATASETS
    for name in set(DATASETS) - set(before):
        del DATASETS[name]


def test_a_registered_set_is_loaded_from_its_folder(tmp_path, registry):
    plant(tmp_path, "pictures", [row("a")])
    register_dataset("zoo", DatasetSpec("", "animals", "MIT", folder=tmp_path / "pictures"))
    assert registry["zoo"].name == "zoo"
    assert [item.id for item in load_dataset("zoo")] == ["a"]
    register_dataset("zoos", DatasetSpec("zoos", "all animals", "MIT", parts=("zoo",)))
    assert [item.id for item in load_dataset("zoos")] == ["zoo/a"]
    with pytest.raises(InputError, match="'zoo' twice"):
        register_dataset("zoo", DatasetSpec("zoo", "animals", "MIT"))
    (tmp_path / "pictures/a.png").unlink()
    with pytest.raises(InputError, match="Complete the folder"):
        load_dataset("zoo")


def test_a_registered_set_without_folder_lies_with_the_others(tmp_path, registry):
    plant(tmp_path, "zoo", [row("a")])
    register_dataset("zoo", DatasetSpec("zoo", "animals", "MIT"))
    assert [item.id for item in load_dataset("zoo", home=tmp_path)] == ["a"]


def test_a_registered_set_may_have_karpathys_format(tmp_path, registry):
    images = [("", "1.jpg", "train"), ("", "2.jpg", "test")]
    karpathy(tmp_path / "photos", "photos", images)
    spec = DatasetSpec(
        "photos", "photographs", "MIT", images="flickr30k-images", folder=tmp_path / "photos"
    )
    register_dataset("photos", spec)
    assert [item.split for item in load_dataset("photos")] == ["train", "test"]


@pytest.mark.parametrize(
    "name, spec, message",
    [
        ("emoji", DatasetSpec("emoji", "", ""), "'emoji' twice"),
        ("a/b", DatasetSpec("a/b", "", ""), "'a/b'"),
        ("all", DatasetSpec("all", "", "", parts=("emojy",)), "'emoji'"),
    ],
)
def test_a_wrong_registration_is_refused(registry, name, spec, message):
    with pytest.raises(InputError, match=message):
        register_dataset(name, spec)


# --- splits ---


@pytest.mark.parametrize("seed", range(4))
def test_splits_share_no_caption_and_cover_everything(seed):
    items = some_items(seed=seed)
    parts = split_items(items, seed=seed)
    captions = {
        name: {normalise(text) for item in part for text in item.texts}
        for name, part in parts.items()
    }
    assert (
        not captions["train"] & captions["val"]
        and not captions["train"] & captions["test"]
        and not captions["val"] & captions["test"]
    )
    assert sorted(item.id for part in parts.values() for item in part) == sorted(
        item.id for item in items
    )
    assert max(map(len, duplicate_groups(items).values())) > 2  # otherwise nothing was tested
    for name, share in zip(("train", "val", "test"), (0.7, 0.1, 0.2), strict=True):
        assert abs(len(parts[name]) / len(items) - share) < 0.03


@pytest.mark.parametrize("by", ["text", "group"])
def test_splits_depend_on_the_seed_and_not_on_the_order(by):
    items = some_items()
    shuffled = random.Random(1).sample(items, len(items))
    assert split_items(items, by) == split_items(shuffled, by)
    assert split_items(items, by) != split_items(items, by, seed=1)


def test_groups_are_held_out_whole():
    for seed in range(20):
        parts = split_items(some_items(), by="group", seed=seed)
        groups = [{item.group for item in part} for part in parts.values()]
        assert all(groups) and sum(map(len, groups)) == len(set.union(*groups)) == 9


def test_a_caption_meets_one_fate_in_two_sets():
    items = [Item(f"i{n}", None, (f"thing {n}",), "g", row=n) for n in range(500)]

    def split_of(parts):
        return {item.id: name for name, part in parts.items() for item in part}

    large = split_of(split_items(items))
    small = split_of(split_items(items[:400]))
    assert sum(large[id] != name for id, name in small.items()) < 0.05 * 400


# --- unpacking ---


def tar_of(*entries: dict, mode: str = "w") -> io.BytesIO:
    "A tar; each entry has a name and TarInfo fields."
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry["name"])
            info.size = 0 if "linkname" in entry else 5
            for key, value in entry.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(b"hello"))
    buffer.seek(0)
    return buffer


def zip_of(name: str, link: bool = False, content: bytes = b"hello") -> io.BytesIO:
    "A zip with one entry."
    buffer, info = io.BytesIO(), zipfile.ZipInfo(name)
    if link:
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(info, content)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize(
    "archive",
    [
        tar_of({"name": "../evil"}),
        tar_of({"name": "a/../../evil"}),
        tar_of({"name": "/tmp/evil"}),
        tar_of({"name": "..\\evil"}),
        tar_of({"name": "link", "type": tarfile.SYMTYPE, "linkname": "/etc"}),
        tar_of({"name": "a/link", "type": tarfile.SYMTYPE, "linkname": "../../x"}),
        tar_of({"name": "hard", "type": tarfile.LNKTYPE, "linkname": "../x"}),
        tar_of({"name": "hard", "type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
        tar_of({"name": "null", "type": tarfile.CHRTYPE}),
        tar_of({"name": "../evil"}, mode="w:gz"),
        zip_of("../evil"),
        zip_of("/tmp/evil"),
        zip_of("C:/evil"),
        zip_of("link", True, b"../../etc"),
    ],
    ids=lambda archive: None,
)
def test_an_archive_that_leads_out_is_refused(tmp_path, archive):
    with pytest.raises(InputError, match="archive"):
        safe_extract(archive, tmp_path / "in")
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_links_that_stay_inside_are_left_out(tmp_path):
    entries = (
        {"name": "a/real"},
        {"name": "a/soft", "type": tarfile.SYMTYPE, "linkname": "../a/real"},
        {"name": "hard", "type": tarfile.LNKTYPE, "linkname": "a/real"},
    )
    assert safe_extract(tar_of(*entries), tmp_path) == 1
    assert [path.name for path in tmp_path.rglob("*") if not path.is_dir()] == ["real"] and (
        tmp_path / "a/real"
    ).read_text() == "hello"


def test_an_archive_without_end_is_refused(tmp_path):
    with pytest.raises(InputError, match="on and on"):
        safe_extract(tar_of(*({"name": f"f{n}"} for n in range(5))), tmp_path, max_files=4)
    with pytest.raises(InputError, match="on and on"):
        safe_extract(zip_of("bomb", content=bytes(10**6)), tmp_path, max_bytes=10**5)


@pytest.mark.parametrize("cut", [100, 600, 5000])
def test_an_archive_that_breaks_off_is_refused(tmp_path, cut):
    whole = tar_of(
        *({"name": f"f{n}"} for n in range(20)), mode="w:gz" if cut == 100 else "w"
    ).getvalue()
    with pytest.raises(InputError, match="breaks off"):
        safe_extract(io.BytesIO(whole[:cut]), tmp_path)


# --- the real sets ---


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs[name]) for name in EXPECTED])
def test_a_fetched_set_is_what_the_readme_says(name):
    items = load_dataset(name)
    assert (
        abs(len(items) - EXPECTED[name]) <= 0.02 * EXPECTED[name]
    )  # a drawing more or less with another librsvg
    assert all(item.texts or item.questions for item in items) and len(
        {item.group for item in items}
    ) >= (1 if name == "easyvqa" else 4)
    parts = split_items(items)
    assert all(parts.values()) and sum(map(len, parts.values())) == len(items)
    for number, item in enumerate(items):
        if item.image is None:
            continue
        with Image.open(
            item.image
        ) as picture:  # every header, every fifth picture to the last pixel
            if number % 5 == 0:
                picture.load()


@needs["prototypes"]
def test_prototypes_follow_the_rows_of_the_classifier():
    rows = {item.row: item for item in load_dataset("prototypes")}
    assert sorted(rows) == list(range(1000))
    assert (
        "goldfish" in rows[1].texts[0]
        and "tabby" in rows[281].texts[0]
        and "toilet tissue" in rows[999].texts[0]
    )
    glosses = [
        json.loads(line)
        for line in (data_home() / "prototypes/glosses.jsonl").open(encoding="utf-8")
    ]
    assert len(glosses) == 20844 and not {line["id"] for line in glosses} & {
        item.id for item in rows.values()
    }


@needs["easyvqa"]
def test_easyvqa_has_its_official_split():
    items = load_dataset("easyvqa")
    parts = split_items(items)
    assert (
        len(parts["test"]) == 1000
        and len(parts["train"]) + len(parts["val"]) == 4000
        and len(parts["val"]) == 500
    )
    assert (
        sum(len(item.questions) for item in items) == 38575 + 9673
        and len({answer for item in items for _, answer in item.questions}) == 13
    )


@needs["tuxpaint"]
def test_tuxpaint_speaks_many_languages():
    english, german = load_dataset("tuxpaint"), load_dataset("tuxpaint", "de")
    texts = {item.id: item.texts[0] for item in german}
    assert (
        len(german) > 900
        and texts["animals/amphibians/frog"] == "Ein Frosch."
        and len({item.texts for item in english}) == 804
    )


@pytest.mark.skipif(
    not (fetched["emoji"] and fetched["emoji2d"]), reason="emoji and emoji2d are not both fetched"
)
def test_emoji_and_emoji2d_share_their_split():
    train = {
        normalise(text)
        for item in split_items(load_dataset("emoji"))["train"]
        for text in item.texts
    }
    test = [normalise(item.texts[0]) for item in split_items(load_dataset("emoji2d"))["test"]]
    assert sum(text in train for text in test) < 0.1 * len(test)
