"""GQA 1.2, balanced (943,000 + 132,062 + 12,578 questions about photographs; 22 GB).

It comes from its public server, in its official format:
data/gqa/{train,val,testdev}_balanced_questions.json, data/gqa/images/*.jpg.
A broken download is resumed, also in a later run. The server states no digests; the number of
questions is checked instead. Licence: CC-BY-4.0; photographs from Visual Genome.
"""

from __future__ import annotations

from pathlib import Path

from common import InputError, Package, fetch, main
from fetch_vqa2 import counted

SERVER = "https://downloads.cs.stanford.edu/nlp/data/gqa"
PACKAGES = (
    Package("url", f"{SERVER}/questions1.2.zip", "1.2"),
    Package("url", f"{SERVER}/images.zip"),
)
STATEMENTS = {"train": 943_000, "val": 132_062, "test": 12_578}


def keep(name: str) -> bool:
    "The balanced questions and the photographs; the unbalanced files are 20 times as large."
    return name.endswith((".jpg", "_balanced_questions.json"))


def build(folder: Path, questions: Path, photographs: Path) -> dict:
    "The set from the two unpacked archives."
    for path in list(questions.rglob("*_balanced_questions.json")):
        path.rename(folder / path.name)
    first = next(photographs.rglob("*.jpg"), None)
    if first is None:
        raise InputError(
            "an archive without any .jpg", "the photographs of GQA", "Download it again."
        )
    first.parent.rename(folder / "images")
    return counted(folder, "gqa", STATEMENTS)


if __name__ == "__main__":
    main("gqa", lambda: fetch("gqa", PACKAGES, build, keep))
