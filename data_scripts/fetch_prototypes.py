"""Classifier rows and dictionary entries: the 1,000 ImageNet classes with their WordNet gloss.

The texts are those of the files that timm ships. There are no pictures: an item's `row` is the
class's row in the classifier of a network trained on ImageNet (EfficientNet-Lite0 here). The 20,844
other synsets of ImageNet-21k have a text and no row; they go to glosses.jsonl as unpaired texts:
{"id", "text"}. Groups follow the order of the classes.
Licence: Apache-2.0 (timm), WordNet licence (texts).
"""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from common import InputError, fetch, finish, main, sha256_file

from alignmerge_nb.data.datasets import ManifestRow

FILES = (
    "imagenet_synsets.txt",
    "imagenet_synset_to_lemma.txt",
    "imagenet_synset_to_definition.txt",
)
GROUPS = {
    "n06": "sign",
    "n07": "food",
    "n09": "landscape",
    "n10": "person",
    "n11": "plant",
    "n12": "plant",
    "n13": "plant",
}  # by the synset's number
DOGS = range(151, 269)  # rows of the classifier
ANIMALS = range(398)  # the classes are sorted by synset, animals first


def group_of(
    row: int,  # a class
    synset: str,  # n01440764
) -> str:
    "A coarse category that can be held out."
    if row in ANIMALS:
        return "dog" if row in DOGS else "animal"
    return GROUPS.get(synset[:3], "artifact")


def read_table(
    path: Path,  # one "synset<tab>text" per line
) -> dict[str, str]:
    "Synset → text."
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines)


def data_folder() -> Path:
    "The folder of timm's data files."
    spec = find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "no package 'timm'",
            "timm, whose data files hold the texts",
            "Install the requirements of this project.",
        )
    return Path(spec.submodule_search_locations[0], "data/_info")


def build(folder: Path) -> dict:
    "The set from timm's data files."
    info = data_folder()
    synsets = (info / FILES[0]).read_text().split()
    lemmas = read_table(info / FILES[1])
    glosses = read_table(info / FILES[2])
    texts = {
        synset: f"{lemmas[synset].strip()}: {glosses[synset].strip()}" for synset in sorted(glosses)
    }
    rows: list[ManifestRow] = [
        {
            "id": synset,
            "image": None,
            "texts": {"en": [texts[synset]]},
            "group": group_of(row, synset),
            "licence": "Apache-2.0, WordNet",
            "row": row,
        }
        for row, synset in enumerate(synsets)
    ]
    classes = set(synsets)
    unpaired = [
        json.dumps({"id": synset, "text": text}, ensure_ascii=False) + "\n"
        for synset, text in texts.items()
        if synset not in classes
    ]
    (folder / "glosses.jsonl").write_text("".join(unpaired), encoding="utf-8")
    files = {file: sha256_file(info / file) for file in FILES}
    return finish(folder, rows, timm=version("timm"), files=files, glosses=len(unpaired))


if __name__ == "__main__":
    main("prototypes", lambda: fetch("prototypes", (), build))
