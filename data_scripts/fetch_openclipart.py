"""Clip art (Debian `openclipart-svg`) drawn at 224 px, with title and keywords of each file.

Of the package's 7,458 drawings an item must have
- a title that no other drawing has: a shared one ("Lemon SVG theme", 416 times) names a series, not
  what is drawn;
- two keywords or more, and the statement that it is in the public domain;
- a size of `BYTES` at most and sides of `ASPECT` to 1 at most;
- a drawing that rsvg-convert can draw within 20 s and that is not blank on white.
The caption is "title: keyword, keyword, …", the group the top folder. Licence: public domain.
"""

from __future__ import annotations

import html
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from common import Package, fetch, finish, main, rasterise, tool
from PIL import Image

from alignmerge_nb.data.datasets import ManifestRow, open_image

CLIPART = Package(
    "apt",
    "openclipart-svg",
    "1:0.18+dfsg-19",
    "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
)
ROOT = "usr/share/openclipart/svg"
BYTES = 2**20  # all but a handful; some of those take minutes to draw
ASPECT = 4  # a strip, padded to a square, would be mostly padding
DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


class Metadata(NamedTuple):
    "What a drawing's file states."

    title: str
    keywords: list[str]
    is_free: bool  # stated to be in the public domain


def clean(text: str | None) -> str:
    "A text without entities, underscores and runs of blanks."
    return " ".join(html.unescape(text or "").replace("_", " ").split())


def metadata(
    path: Path,  # an SVG
) -> Metadata:
    "Title, keywords and licence of a drawing."
    try:
        nodes = ElementTree.parse(path).iter()
        work = next((node for node in nodes if node.tag.endswith("}Work")), None)
    except (ElementTree.ParseError, ValueError, LookupError):
        work = None
    if work is None:
        return Metadata("", [], False)
    keywords = [clean(node.text) for node in work.iterfind(f"{DC}subject//{RDF}li")]
    licences = [
        node.get(f"{RDF}resource", "").lower() for node in work if node.tag.endswith("license")
    ]
    return Metadata(
        title=clean(work.findtext(f"{DC}title")),
        keywords=list(dict.fromkeys(filter(None, keywords))),
        is_free=any("publicdomain" in licence for licence in licences),
    )


def reason_before_drawing(
    path: Path,  # an SVG
    about: Metadata,
    titles: Counter[str],  # lower-case title → how many drawings have it
) -> str | None:
    "Why a file is not drawn, or None."
    if not about.title or len(about.keywords) < 2:
        return "no title, or fewer than two keywords"
    if not about.is_free:
        return "not stated to be in the public domain"
    if titles[about.title.lower()] > 1:
        return "a title that others have, too"
    if path.stat().st_size > BYTES:
        return f"more than {BYTES} bytes"
    return None


def reason_to_skip(
    path: Path,  # a PNG that was drawn
) -> str | None:
    "Why a drawing is left out, or None."
    picture = open_image(path).convert("RGBA")
    if max(picture.size) > ASPECT * min(picture.size):
        return f"sides of more than {ASPECT} to 1"
    white = Image.new("RGBA", picture.size, "white")
    darkest, brightest = Image.alpha_composite(white, picture).convert("L").getextrema()
    return "blank" if brightest - darkest < 16 else None


def build(folder: Path, package: Path) -> dict:
    "The set from the unpacked package."
    root = package / ROOT
    about = {path: metadata(path) for path in sorted(root.rglob("*.svg"))}
    titles = Counter(each.title.lower() for each in about.values())
    skipped = {}
    drawings = {}
    for path in about:
        name = path.relative_to(root)
        reason = reason_before_drawing(path, about[path], titles)
        if reason:
            skipped[str(name)] = reason
        else:
            drawings[path] = folder / "images" / name.with_suffix(".png")
    failed = rasterise(drawings)
    rows: list[ManifestRow] = []
    for path, png in drawings.items():
        name = path.relative_to(root)
        reason = failed.get(path) or reason_to_skip(png)
        if reason:
            skipped[str(name)] = reason
            png.unlink(missing_ok=True)
        else:
            rows.append(manifest_row(name, about[path]))
    return finish(folder, rows, skipped)


def manifest_row(
    name: Path,  # of the SVG, below the package's root
    about: Metadata,
) -> ManifestRow:
    "The manifest's row of a drawing."
    return {
        "id": str(name.with_suffix("")),
        "image": f"images/{name.with_suffix('.png')}",
        "texts": {"en": [f"{about.title}: {', '.join(about.keywords)}"]},
        "group": name.parts[0],
        "licence": "public domain",
    }


def run() -> None:
    "Look for rsvg-convert before the download, not after it."
    tool("rsvg-convert", "librsvg2-bin")
    fetch("openclipart", (CLIPART,), build, lambda name: name.endswith(".svg"))


if __name__ == "__main__":
    main("openclipart", run)
