"""Stamps of Tux Paint (Debian `tuxpaint-stamps-default`): photo cut-outs and clip art with a one-sentence caption in 77 languages.

An item is a picture (PNG, or SVG drawn at 224 px) with a .txt of the same name: its first line is the English caption, the others are `code.utf8=caption`.
The group is the top folder (animals, food, …). Mirrored variants and the spoken captions are left out. Licence: GPL-2.
"""

from __future__ import annotations

from pathlib import Path

from common import InputError, Package, fetch, finish, main, rasterise

STAMPS = Package(
    "apt",
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
ROOT = "usr/share/tuxpaint/stamps"


def captions(
    path: Path,  # a stamp's .txt
) -> dict[str, list[str]]:
    "Its caption in each language."
    first, *others = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = [("en", first)] + [
        (code.removesuffix(".utf8"), text)
        for code, mark, text in (line.partition("=") for line in others)
        if mark
    ]
    return {code.strip(): [text.strip()] for code, text in pairs if text.strip()}


def build(folder: Path, package: Path) -> dict:
    "The set from the unpacked package."
    rows, drawings, skipped, notes = [], {}, {}, {}
    for text in sorted((package / ROOT).rglob("*.txt")):
        name = text.relative_to(package / ROOT).with_suffix("")
        picture = next(
            (p for kind in (".png", ".svg") if (p := text.with_suffix(kind)).is_file()), None
        )
        texts = captions(text) if text.stat().st_size else {}
        if picture is None or "en" not in texts:
            skipped[str(name)] = "no picture" if picture is None else "no English caption"
            continue
        target = folder / "images" / name.with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        if picture.suffix == ".svg":
            drawings[picture] = target
        else:
            picture.rename(target)
        rows.append(
            {
                "id": str(name),
                "image": f"images/{name}.png",
                "texts": texts,
                "group": name.parts[0],
                "licence": "GPL-2",
            }
        )
    try:
        wrong = rasterise(drawings)
    except InputError as error:
        wrong = dict.fromkeys(drawings, "SVG, and no rsvg-convert")
        notes = {
            "missing_tools": ["rsvg-convert"],
            "notes": [f"{len(drawings)} SVG stamps skipped: {error}"],
        }
    for picture, why in wrong.items():
        skipped[str(picture.relative_to(package / ROOT).with_suffix(""))] = why
    return finish(folder, [row for row in rows if row["id"] not in skipped], skipped, **notes)


if __name__ == "__main__":
    main(
        "tuxpaint",
        lambda: fetch(
            "tuxpaint", (STAMPS,), build, lambda name: name.endswith((".png", ".svg", ".txt"))
        ),
    )
