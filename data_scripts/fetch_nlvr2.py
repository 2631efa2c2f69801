"""NLVR2 (86,373 + 6,982 + 6,967 sentences about two photographs) in its official format.

Files: data/nlvr2/{train,dev,test1}.json, data/nlvr2/images/*.png. The sentences are downloaded. The
photographs are given out on request only (fill in the form named in the README of
github.com/lil-lab/nlvr); pass the archive that you received, or one of what the repository's
download script got: `python data_scripts/fetch_nlvr2.py --images images.tar.gz`.
Licence: sentences CC-BY-4.0; photographs belong to their owners, research only.
"""

from __future__ import annotations

from pathlib import Path

from common import InputError, Package, fetch, main
from fetch_vqa2 import counted

SERVER = "https://raw.githubusercontent.com/lil-lab/nlvr/master/nlvr2/data"
PARTS = ("train", "dev", "test1")
STATEMENTS = {"train": 86_373, "val": 6_982, "test": 6_967}


def build(folder: Path, train: Path, dev: Path, test1: Path, photographs: Path) -> dict:
    "The set from the three files and the unpacked archive, all photographs in one folder."
    for part, source in zip(PARTS, (train, dev, test1), strict=True):
        (source / f"{part}.json").rename(folder / f"{part}.json")
    (folder / "images").mkdir()
    for path in list(photographs.rglob("*.png")):
        path.rename(folder / "images" / path.name)
    return counted(folder, "nlvr2", STATEMENTS)


def run(images: str | None) -> None:
    "Fetch the sentences and unpack the photographs."
    if images is None:
        raise InputError(
            "no archive of photographs",
            "--images images.tar.gz",
            "Ask for it with the form named in `--help`.",
        )
    fetch(
        "nlvr2",
        (*(Package("url", f"{SERVER}/{part}.json") for part in PARTS), Package("file", images)),
        build,
    )


if __name__ == "__main__":
    main("nlvr2", run, images="the archive of photographs that the form gave you")
