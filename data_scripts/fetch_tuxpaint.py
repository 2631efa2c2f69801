"""Stamps of Tux Paint (Debian `tuxpaint-stamps-default`) with a caption in 77 languages.

Photo cut-outs and clip art. An item is a picture (PNG, or SVG drawn at 224 px) with a .txt of the
same name: its first line is the English caption, the others are `code.utf8=caption`. The group is
the top folder (animals, food, …). Mirrored variants and the spoken captions are left out.
Licence: GPL-2.
"""

from __future__ import annotations

from pathlib import Path

from common import InputError, Package, fetch, finish, main, rasterise

from alignmerge_nb.data.datasets import ManifestRow

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
    texts = {"en": first}
    for line in others:
        code, mark, text = line.partition("=")
        if mark and text.strip():
            texts[code.removesuffix(".utf8").strip()] = text
    return {code: [text.strip()] for code, text in texts.items() if text.strip()}


def picture_of(
    text: Path,  # a stamp's .txt
) -> Path | None:
    "The picture beside a text: a PNG, or else an SVG."
    candidates = [text.with_suffix(".png"), text.with_suffix(".svg")]
    return next((path for path in candidates if path.is_file()), None)


def draw_stamps(
    drawings: dict[Path, Path],  # SVG file → PNG file to make
) -> tuple[dict[Path, str], dict[str, list[str]]]:
    "Which stamps cannot be drawn, and why; and what source.json shall say of a missing tool."
    try:
        return rasterise(drawings), {}
    except InputError as error:
        notes = [f"{len(drawings)} SVG stamps skipped: {error}"]
        failed = dict.fromkeys(drawings, "SVG, and no rsvg-convert")
        return failed, {"missing_tools": ["rsvg-convert"], "notes": notes}


def build(folder: Path, package: Path) -> dict:
    "The set from the unpacked package."
    root = package / ROOT
    rows: list[ManifestRow] = []
    drawings = {}
    skipped = {}
    for text in sorted(root.rglob("*.txt")):
        name = text.relative_to(root).with_suffix("")
        picture = picture_of(text)
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
    failed, notes = draw_stamps(drawings)
    for picture, reason in failed.items():
        skipped[str(picture.relative_to(root).with_suffix(""))] = reason
    return finish(folder, [row for row in rows if row["id"] not in skipped], skipped, **notes)


def keep(name: str) -> bool:
    "Pictures and texts; no sounds."
    return name.endswith((".png", ".svg", ".txt"))


if __name__ == "__main__":
    main("tuxpaint", lambda: fetch("tuxpaint", (STAMPS,), build, keep))
