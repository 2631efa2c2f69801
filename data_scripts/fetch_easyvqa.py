"""easy-VQA (PyPI `easy-vqa`): 64 px images of one coloured shape, with templated questions.

There are 13 answers, and official train and test parts. Images stay files; the questions of an
image are in its manifest line. There are no captions. Licence: MIT.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from common import Package, fetch, finish, main

from alignmerge_nb.data.datasets import ManifestRow, Question

WHEEL = Package(
    "pip", "easy-vqa", "1.0", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"
)


def split_rows(
    questions: dict[str, list[Question]],  # image → its questions
    split: str,
) -> list[ManifestRow]:
    "The manifest's rows of a part."
    return [
        {
            "id": f"{split}/{image}",
            "image": f"{split}/{image}.png",
            "texts": {},
            "group": "easyvqa",
            "licence": "MIT",
            "split": split,
            "questions": asked,
        }
        for image, asked in questions.items()
    ]


def build(folder: Path, wheel: Path) -> dict:
    "The set from the unpacked wheel."
    data = wheel / "easy_vqa/data"
    rows: list[ManifestRow] = []
    for split in ("train", "test"):
        questions = defaultdict(list)
        for question, answer, image in json.loads((data / split / "questions.json").read_text()):
            questions[image].append({"question": question, "answer": answer})
        (data / split / "images").rename(folder / split)
        rows += split_rows(questions, split)
    count = sum(len(row["questions"]) for row in rows)
    return finish(folder, rows, questions=count, answers=(data / "answers.txt").read_text().split())


if __name__ == "__main__":
    main("easyvqa", lambda: fetch("easyvqa", (WHEEL,), build))
