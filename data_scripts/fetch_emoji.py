"""Rendered emoji (256 px) with label and keywords in some 30 languages.

Pictures: npm `@lobehub/fluent-emoji-3d`; texts: npm `emojibase-data`. An item is an emoji whose
code sequence both packages spell alike, without skin-tone variants. Its caption is
"label: keyword, keyword, …", its group the Unicode group (smileys-emotion, people-body, …).
Licence: MIT (both).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from common import Package, fetch, finish, main

from alignmerge_nb.data.datasets import ManifestRow

RENDERS = Package(
    "npm",
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
)
TEXTS = Package(
    "npm",
    "emojibase-data",
    "17.0.0",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)


class Texts(NamedTuple):
    "The texts of `emojibase-data`, by code sequence."

    captions: dict[str, dict[str, list[str]]]  # code → language → caption
    groups: dict[str, str]


def read_texts(
    emojibase: Path,  # the unpacked `emojibase-data`
) -> Texts:
    "For every code sequence the caption in each language, and the group."
    meta = json.loads((emojibase / "package/meta/groups.json").read_text())
    captions: dict[str, dict[str, list[str]]] = {}
    groups = {}
    for path in sorted(emojibase.glob("package/*/data.json")):
        language = path.parent.name
        for entry in json.loads(path.read_text(encoding="utf-8")):
            if "group" not in entry:
                continue  # regional indicators: letters, not pictures
            code = entry["hexcode"].lower()
            label = entry.get("label", "").strip()
            keywords = ", ".join(entry.get("tags", ()))
            if label:
                caption = f"{label}: {keywords}" if keywords else label
                captions.setdefault(code, {})[language] = [caption]
            groups[code] = meta["groups"][str(entry["group"])]
    return Texts(captions, groups)


def pair(
    folder: Path,  # the set under construction
    pictures: list[Path],  # one per code sequence
    emojibase: Path,
    licence: str,
) -> dict:
    "The pictures that have a caption, with it."
    texts = read_texts(emojibase)
    (folder / "images").mkdir()
    rows: list[ManifestRow] = []
    skipped = {}
    for picture in pictures:
        code = picture.stem
        if "en" not in texts.captions.get(code, ()):
            skipped[code] = "no label for this code sequence (skin tones have none of their own)"
            continue
        image = f"images/{picture.name}"
        picture.rename(folder / image)
        rows.append(
            {
                "id": code,
                "image": image,
                "texts": texts.captions[code],
                "group": texts.groups[code],
                "licence": licence,
            }
        )
    return finish(folder, rows, skipped)


def build(folder: Path, renders: Path, emojibase: Path) -> dict:
    "The set from the two unpacked packages."
    return pair(folder, sorted(renders.glob("package/assets/*.webp")), emojibase, "MIT")


if __name__ == "__main__":
    main("emoji", lambda: fetch("emoji", (RENDERS, TEXTS), build))
