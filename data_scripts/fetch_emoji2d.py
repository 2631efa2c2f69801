"""Flat emoji (64 px) with the texts of `emoji`: a second picture to the same caption.

Pictures: npm `emoji-datasource-google`. Licence: Apache-2.0 (pictures), MIT (texts).
"""

from __future__ import annotations

from pathlib import Path

from common import Package, fetch, main
from fetch_emoji import TEXTS, pair

PICTURES = Package(
    "npm",
    "emoji-datasource-google",
    "16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)


def build(folder: Path, pictures: Path, emojibase: Path) -> dict:
    "The set from the two unpacked packages."
    return pair(
        folder, sorted(pictures.glob("package/img/google/64/*.png")), emojibase, "Apache-2.0"
    )


if __name__ == "__main__":
    main(
        "emoji2d",
        lambda: fetch("emoji2d", (PICTURES, TEXTS), build, lambda name: "sheets" not in name),
    )
