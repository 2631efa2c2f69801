"""easy-VQA (PyPI `easy-vqa`): 64 px images of one coloured shape, templated questions, 13 answers, the official train and test parts.

Images stay files; the questions of an image are in its manifest line. There are no captions. Licence: MIT.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from common import Package, fetch, finish, main

WHEEL = Package(
    "pip", "easy-vqa", "1.0", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"
)


def build(folder: Path, wheel: Path) -> dict:
    "The set from the unpacked wheel."
    rows, count = [], 0
    for split in ("train", "test"):
        source, questions = wheel / "easy_vqa/data" / split, defaultdict(list)
        for question, answer, image in json.loads((source / "questions.json").read_text()):
            questions[image].append({"question": question, "answer": answer})
        (source / "images").rename(folder / split)
        rows += [
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
        count += sum(map(len, questions.values()))
    return finish(
        folder,
        rows,
        questions=count,
        answers=(wheel / "easy_vqa/data/answers.txt").read_text().split(),
    )


if __name__ == "__main__":
    main("easyvqa", lambda: fetch("easyvqa", (WHEEL,), build))
