"""VQA v2 (443,757 + 214,354 questions about COCO photographs, ten answers each).

It comes from its public server, in its official format:
data/vqa2/v2_OpenEnded_mscoco_{train,val}2014_questions.json and
data/vqa2/v2_mscoco_{train,val}2014_annotations.json.
The photographs are those of COCO: `python data_scripts/fetch_coco.py`. The server states no
digests; the number of questions is checked instead. Licence: CC-BY-4.0.
"""

from __future__ import annotations

from pathlib import Path

from common import InputError, Package, fetch, main

from alignmerge_nb.data.vqa import OFFICIAL

SERVER = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
PACKAGES = tuple(
    Package("url", f"{SERVER}/v2_{kind}_{part}_mscoco.zip", "2")
    for kind in ("Questions", "Annotations")
    for part in ("Train", "Val")
)
STATEMENTS = {"train": 443_757, "val": 214_354}


def counted(
    folder: Path,  # the set under construction, its files in place
    name: str,  # a key of OFFICIAL
    counts: dict[str, int],  # split → how many statements there must be
    pictures: bool = True,  # whether the set has pictures of its own
) -> dict:
    "Read every part as the loader does; refuse a set that is not whole."
    official = OFFICIAL[name]
    n_statements = {}
    for split, part in official.parts.items():
        statements = official.read(folder, part, split)
        images = {image for one in statements for image in one.images} if pictures else set()
        paths = [folder / Path(official.picture(image)).relative_to(name) for image in images]
        missing = sum(not path.is_file() for path in paths)
        n_statements[split] = len(statements)
        if len(statements) != counts[split] or missing:
            raise InputError(
                f"{len(statements)} statements in {part}, {missing} pictures missing",
                f"{counts[split]} statements, every picture",
                "Download it again.",
            )
    return {"items": sum(n_statements.values()), "statements": n_statements}


def build(folder: Path, *unpacked: Path) -> dict:
    "The set from the four unpacked archives."
    for path in [path for source in unpacked for path in source.rglob("v2_*.json")]:
        path.rename(folder / path.name)
    return counted(folder, "vqa2", STATEMENTS, pictures=False)


if __name__ == "__main__":
    main("vqa2", lambda: fetch("vqa2", PACKAGES, build))
