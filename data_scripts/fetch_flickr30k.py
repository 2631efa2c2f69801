"""Flickr30k with Karpathy's split (31,014 photographs, five captions each; 4 GB).

Its official format: data/flickr30k/dataset_flickr30k.json, data/flickr30k/flickr30k-images/*.jpg.
The captions are downloaded. The photographs are given out on request only (fill in the form of the
University of Illinois, Denotation Graph page); pass the archive that you received:
`python data_scripts/fetch_flickr30k.py --images flickr30k-images.tar.gz`.
Licence: research and education only, photographs under their Flickr terms.
"""

from __future__ import annotations

from pathlib import Path

from common import InputError, Package, fetch, main
from fetch_coco import CAPTIONS, place

IMAGES = 31_014


def build(folder: Path, captions: Path, photographs: Path) -> dict:
    "The set from the two unpacked archives."
    first = next(photographs.rglob("*.jpg"), None)
    if first is None:
        raise InputError(
            "an archive without any .jpg",
            "the photographs of Flickr30k",
            "Pass the archive that the form gave you.",
        )
    return place(folder, captions, "flickr30k", {first.parent: "flickr30k-images"}, IMAGES)


def run(images: str | None) -> None:
    "Fetch the captions and unpack the photographs."
    if images is None:
        raise InputError(
            "no archive of photographs",
            "--images flickr30k-images.tar.gz",
            "Ask for it with the form named in `--help`.",
        )
    fetch("flickr30k", (CAPTIONS, Package("file", images)), build)


if __name__ == "__main__":
    main("flickr30k", run, images="the archive of photographs that the form gave you")
