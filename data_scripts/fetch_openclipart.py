"""Clip art (Debian `openclipart-svg`) drawn at 224 px, with title and keywords from each file's RDF metadata.

Of the package's 7,458 drawings an item must have
- a title that no other drawing has: a shared one ("Lemon SVG theme", 416 times) names a series, not what is drawn;
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

from common import Package, fetch, finish, main, rasterise, tool
from PIL import Image

from alignmerge_nb.data.datasets import open_image

CLIPART = Package(
    "apt",
    "openclipart-svg",
    "1:0.18+dfsg-19",
    "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
)
ROOT = "usr/share/openclipart/svg"
BYTES = 2**20  # all but a handful; some of those take minutes to draw
ASPECT = 4  # a strip, padded to a square, would be mostly padding
DC, RDF = "{http://purl.org/dc/elements/1.1/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def metadata(
    path: Path,  # an SVG
) -> tuple[str, list[str], bool]:
    "Its title, its keywords, and whether it says that it is in the public domain."
    try:
        work = next(
            (node for node in ElementTree.parse(path).iter() if node.tag.endswith("}Work")), None
        )
    except (ElementTree.ParseError, ValueError, LookupError):
        work = None
    if work is None:
        return "", [], False
    clean = lambda text: " ".join(html.unescape(text or "").replace("_", " ").split())
    keywords = [
        word for node in work.iterfind(f"{DC}subject//{RDF}li") if (word := clean(node.text))
    ]
    licences = [
        node.get(f"{RDF}resource", "").lower() for node in work if node.tag.endswith("license")
    ]
    return (
        clean(work.findtext(f"{DC}title")),
        list(dict.fromkeys(keywords)),
        any("publicdomain" in licence for licence in licences),
    )


def reason_to_skip(
    path: Path,  # a PNG that was drawn
) -> str | None:
    "Why a drawing cannot serve, or None."
    picture = open_image(path).convert("RGBA")
    if max(picture.size) > ASPECT * min(picture.size):
        return f"sides of more than {ASPECT} to 1"
    grey = (
        Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        .convert("L")
        .getextrema()
    )
    return "blank" if grey[1] - grey[0] < 16 else None


def build(folder: Path, package: Path) -> dict:
    "The set from the unpacked package."
    about = {path: metadata(path) for path in sorted((package / ROOT).rglob("*.svg"))}
    titles, skipped, drawings = Counter(title.lower() for title, _, _ in about.values()), {}, {}
    for path, (title, keywords, free) in about.items():
        name = str(path.relative_to(package / ROOT))
        wrong = {
            "no title, or fewer than two keywords": not title or len(keywords) < 2,
            "not stated to be in the public domain": not free,
            "a title that others have, too": titles[title.lower()] > 1,
            f"more than {BYTES} bytes": path.stat().st_size > BYTES,
        }
        if any(wrong.values()):
            skipped[name] = next(why for why, holds in wrong.items() if holds)
        else:
            drawings[path] = folder / "images" / Path(name).with_suffix(".png")
    failed, rows = rasterise(drawings), []
    for path, png in drawings.items():
        name = path.relative_to(package / ROOT)
        if why := failed.get(path) or reason_to_skip(png):
            skipped[str(name)] = why
            png.unlink(missing_ok=True)
            continue
        title, keywords, _ = about[path]
        rows.append(
            {
                "id": str(name.with_suffix("")),
                "image": f"images/{name.with_suffix('.png')}",
                "texts": {"en": [f"{title}: {', '.join(keywords)}"]},
                "group": name.parts[0],
                "licence": "public domain",
            }
        )
    return finish(folder, rows, skipped)


def run() -> None:
    "Ask for rsvg-convert before the download, not after it."
    tool("rsvg-convert", "librsvg2-bin")
    fetch("openclipart", (CLIPART,), build, lambda name: name.endswith(".svg"))


if __name__ == "__main__":
    main("openclipart", run)
