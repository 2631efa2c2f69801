"""Rendered emoji (256 px, npm `@lobehub/fluent-emoji-3d`) with label and keywords in some 30 languages (npm `emojibase-data`).

An item is an emoji whose code sequence both packages spell alike, without skin-tone variants. Its caption is "label: keyword, keyword, …",
its group the Unicode group (smileys-emotion, people-body, …). Licence: MIT (both).
"""

from __future__ import annotations

import json
from pathlib import Path

from common import Package, fetch, finish, main

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


def captions(
    emojibase: Path,  # the unpacked `emojibase-data`
) -> tuple[dict[str, dict[str, list[str]]], dict[str, str]]:
    "For every code sequence the caption in each language, and the group."
    texts, groups = {}, {}
    names = {
        int(number): name
        for number, name in json.loads((emojibase / "package/meta/groups.json").read_text())[
            "groups"
        ].items()
    }
    for path in sorted(emojibase.glob("package/*/data.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")):
            if "group" not in entry:
                continue  # regional indicators: letters, not pictures
            code, label, keywords = (
                entry["hexcode"].lower(),
                entry.get("label", "").strip(),
                ", ".join(entry.get("tags", ())),
            )
            if label:
                texts.setdefault(code, {})[path.parent.name] = [
                    f"{label}: {keywords}" if keywords else label
                ]
            groups[code] = names[entry["group"]]
    return texts, groups


def pair(
    folder: Path,  # the set under construction
    pictures: list[Path],  # one per code sequence
    emojibase: Path,
    licence: str,
) -> dict:
    "The pictures that have a caption, with it."
    texts, groups = captions(emojibase)
    (folder / "images").mkdir()
    rows, skipped = [], {}
    for picture in pictures:
        code = picture.stem
        if "en" not in texts.get(code, ()):
            skipped[code] = "no label for this code sequence (skin tones have none of their own)"
            continue
        rows.append(
            {
                "id": code,
                "image": f"images/{picture.name}",
                "texts": texts[code],
                "group": groups[code],
                "licence": licence,
            }
        )
        picture.rename(folder / rows[-1]["image"])
    return finish(folder, rows, skipped)


def build(folder: Path, renders: Path, emojibase: Path) -> dict:
    "The set from the two unpacked packages."
    return pair(folder, sorted(renders.glob("package/assets/*.webp")), emojibase, "MIT")


if __name__ == "__main__":
    main("emoji", lambda: fetch("emoji", (RENDERS, TEXTS), build))
