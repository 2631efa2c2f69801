"""Pixel art of the objects of a game (Debian `cataclysm-dda-data`, tile set ChibiUltica) with their name and description.

An object (a tool, a monster, a piece of furniture, …) of the core game is paired with the sprite that the tile set gives to its id; of several
sprites (seasons, rotations, variants) the first one counts. A description may be inherited (`copy-from`). Sprites are mostly 32 px and are
enlarged 7 times by nearest neighbour; a blank sprite is left out. The caption is "name. description", the group the object's type.
Licence: CC-BY-SA-3.0.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from common import Package, fetch, finish, main
from PIL import Image

from alignmerge_nb.data.datasets import open_image

GAME = Package(
    "apt",
    "cataclysm-dda-data",
    "0.F-3-9",
    "cd0c097169fe364fdb6bcdab77663d24920a063387ce2fbf1b5d3be01c141105",
)
ROOT = "usr/share/games/cataclysm-dda"
ENLARGE = 7  # 32 px -> 224 px
THINGS = {
    "AMMO",
    "ARMOR",
    "BATTERY",
    "BOOK",
    "COMESTIBLE",
    "ENGINE",
    "GENERIC",
    "GUN",
    "GUNMOD",
    "MAGAZINE",
    "MONSTER",
    "PET_ARMOR",
    "TOOL",
    "TOOLMOD",
    "TOOL_ARMOR",
    "WHEEL",
    "furniture",
    "terrain",
    "vehicle_part",
}  # what can be seen (a recipe or an effect cannot)


def objects(
    folder: Path,  # the game's json folder
) -> dict[str, dict]:
    "The visible objects, and the abstract ones that they inherit from, by id."
    found = {}
    for path in sorted(folder.rglob("*.json")):
        entries = json.loads(path.read_text(encoding="utf-8"))
        for entry in entries if isinstance(entries, list) else [entries]:
            key = entry.get("id", entry.get("abstract")) if isinstance(entry, dict) else None
            if isinstance(key, str) and entry.get("type") in THINGS:
                found.setdefault(key, entry)
    return found


def text_of(
    found: dict[str, dict],
    key: str,  # an object's id
    field: str,  # "name" or "description"
) -> str:
    "A text of an object or of its nearest ancestor that has it, without colour tags."
    seen = set()
    while key in found and key not in seen:
        seen.add(key)
        value = found[key].get(field)
        if isinstance(value, dict):
            value = value.get("str") or value.get("str_sp")
        if isinstance(value, str) and value.strip():
            return " ".join(re.sub(r"</?color[^>]*>", "", value).split())
        key = found[key].get("copy-from")
    return ""


def sprites(
    folder: Path,  # a tile set
) -> Iterator[tuple[str, Image.Image]]:
    "Every (object id, sprite); sprites are numbered through all sheets."
    sheets, where = json.loads((folder / "tile_config.json").read_text(encoding="utf-8")), []
    side = sheets["tile_info"][0]
    for sheet in sheets["tiles-new"]:
        picture = open_image(folder / sheet["file"]).convert("RGBA")
        width, height = (
            sheet.get("sprite_width", side["width"]),
            sheet.get("sprite_height", side["height"]),
        )
        where += [
            (picture, (x, y, x + width, y + height))
            for y in range(0, picture.height - height + 1, height)
            for x in range(0, picture.width - width + 1, width)
        ]
    for tile in (tile for sheet in sheets["tiles-new"] for tile in sheet["tiles"]):
        number = tile.get("fg")
        while isinstance(number, list | dict):
            number = (
                (number[0] if number else None) if isinstance(number, list) else number["sprite"]
            )
        if number is None or not 0 <= number < len(where):
            continue
        picture, box = where[number]
        for key in tile["id"] if isinstance(tile["id"], list) else [tile["id"]]:
            yield key, picture.crop(box)


def build(folder: Path, package: Path) -> dict:
    "The set from the unpacked package."
    found, rows, skipped = objects(package / ROOT / "json"), {}, defaultdict(str)
    (folder / "images").mkdir()
    for key, sprite in sprites(package / ROOT / "gfx/ChibiUltica"):
        name, description = text_of(found, key, "name"), text_of(found, key, "description")
        if key in rows or not (name and description):
            continue
        if not sprite.getchannel("A").getbbox():
            skipped[key] = "blank sprite"
            continue
        image = f"images/{re.sub('[^A-Za-z0-9_.-]', '_', key)}.png"
        sprite.resize(
            (sprite.width * ENLARGE, sprite.height * ENLARGE), Image.Resampling.NEAREST
        ).save(folder / image)
        rows[key] = {
            "id": key,
            "image": image,
            "texts": {"en": [f"{name}. {description}"]},
            "group": found[key]["type"].lower(),
            "licence": "CC-BY-SA-3.0",
        }
    return finish(folder, list(rows.values()), skipped)


if __name__ == "__main__":
    main(
        "cdda",
        lambda: fetch(
            "cdda",
            (GAME,),
            build,
            lambda name: f"{ROOT}/json/" in name or f"{ROOT}/gfx/ChibiUltica/" in name,
        ),
    )
