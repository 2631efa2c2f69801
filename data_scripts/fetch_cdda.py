"""Pixel art of a game's objects (Debian `cataclysm-dda-data`) with their name and description.

An object (a tool, a monster, a piece of furniture, …) of the core game is paired with the sprite
that the tile set ChibiUltica gives to its id; of several sprites (seasons, rotations, variants) the
first one counts. A description may be inherited (`copy-from`). Sprites are mostly 32 px and are
enlarged 7 times by nearest neighbour; a blank sprite is left out. The caption is
"name. description", the group the object's type. Licence: CC-BY-SA-3.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from common import Package, fetch, finish, main
from PIL import Image

from alignmerge_nb.data.datasets import ManifestRow, open_image

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
    entry_of: dict[str, dict] = {}
    for path in sorted(folder.rglob("*.json")):
        entries = json.loads(path.read_text(encoding="utf-8"))
        for entry in entries if isinstance(entries, list) else [entries]:
            key = entry.get("id", entry.get("abstract")) if isinstance(entry, dict) else None
            if isinstance(key, str) and entry.get("type") in THINGS:
                entry_of.setdefault(key, entry)
    return entry_of


def text_of(
    entries: dict[str, dict],  # from `objects`
    key: str,  # an object's id
    field: str,  # "name" or "description"
) -> str:
    "A text of an object or of its nearest ancestor that has it, without colour tags."
    seen = set()
    while key in entries and key not in seen:
        seen.add(key)
        value = entries[key].get(field)
        if isinstance(value, dict):
            value = value.get("str") or value.get("str_sp")
        if isinstance(value, str) and value.strip():
            return " ".join(re.sub(r"</?color[^>]*>", "", value).split())
        key = entries[key].get("copy-from")
    return ""


Cut = tuple[Image.Image, tuple[int, int, int, int]]  # a sheet, and the box of a sprite in it


def sheet_sprites(
    picture: Image.Image,
    width: int,  # of a sprite
    height: int,
) -> Iterator[Cut]:
    "The sprites of a sheet, row by row."
    for y in range(0, picture.height - height + 1, height):
        for x in range(0, picture.width - width + 1, width):
            yield picture, (x, y, x + width, y + height)


def first_number(
    foreground: object,  # a number, a list of variants, or {"weight": …, "sprite": …}
) -> int | None:
    "The number of the first sprite of a tile."
    while isinstance(foreground, list | dict):
        if isinstance(foreground, dict):
            foreground = foreground["sprite"]
        else:
            foreground = foreground[0] if foreground else None
    return foreground


def sprites(
    folder: Path,  # a tile set
) -> Iterator[tuple[str, Image.Image]]:
    "Every (object id, sprite); sprites are numbered through all sheets."
    config = json.loads((folder / "tile_config.json").read_text(encoding="utf-8"))
    side = config["tile_info"][0]
    cuts: list[Cut] = []
    for sheet in config["tiles-new"]:
        picture = open_image(folder / sheet["file"]).convert("RGBA")
        width = sheet.get("sprite_width", side["width"])
        height = sheet.get("sprite_height", side["height"])
        cuts += sheet_sprites(picture, width, height)
    for tile in (tile for sheet in config["tiles-new"] for tile in sheet["tiles"]):
        number = first_number(tile.get("fg"))
        if number is None or not 0 <= number < len(cuts):
            continue
        picture, box = cuts[number]
        for key in tile["id"] if isinstance(tile["id"], list) else [tile["id"]]:
            yield key, picture.crop(box)


def build(folder: Path, package: Path) -> dict:
    "The set from the unpacked package."
    entries = objects(package / ROOT / "json")
    rows: dict[str, ManifestRow] = {}
    skipped = {}
    (folder / "images").mkdir()
    for key, sprite in sprites(package / ROOT / "gfx/ChibiUltica"):
        name = text_of(entries, key, "name")
        description = text_of(entries, key, "description")
        if key in rows or not (name and description):
            continue
        if not sprite.getchannel("A").getbbox():
            skipped[key] = "blank sprite"
            continue
        image = f"images/{re.sub('[^A-Za-z0-9_.-]', '_', key)}.png"
        size = (sprite.width * ENLARGE, sprite.height * ENLARGE)
        sprite.resize(size, Image.Resampling.NEAREST).save(folder / image)
        rows[key] = {
            "id": key,
            "image": image,
            "texts": {"en": [f"{name}. {description}"]},
            "group": entries[key]["type"].lower(),
            "licence": "CC-BY-SA-3.0",
        }
    return finish(folder, list(rows.values()), skipped)


def keep(name: str) -> bool:
    "The objects of the core game and the tile set."
    return f"{ROOT}/json/" in name or f"{ROOT}/gfx/ChibiUltica/" in name


if __name__ == "__main__":
    main("cdda", lambda: fetch("cdda", (GAME,), build, keep))
