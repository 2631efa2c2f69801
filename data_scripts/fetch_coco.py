"""COCO 2014 with Karpathy's split (123,287 photographs, five captions each; 20 GB).

It comes from its public servers, in its official format: data/coco/dataset_coco.json,
data/coco/train2014/*.jpg, data/coco/val2014/*.jpg. A broken download is resumed, also in a later
run. The servers state MD5 sums of the images and none of the captions, whose count is checked
instead. Licence: captions CC-BY-4.0, photographs under their Flickr terms.
"""

from __future__ import annotations

from pathlib import Path

from common import InputError, Package, fetch, main, sha256_file

from alignmerge_nb.data.datasets import DATASETS, karpathy_items

CAPTIONS = Package(
    "url", "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
)
PHOTOGRAPHS = (
    Package(
        "url",
        "http://images.cocodataset.org/zips/train2014.zip",
        "2014",
        "md5:0da8c0bd3d6becc4dcb32757491aca88",
    ),
    Package(
        "url",
        "http://images.cocodataset.org/zips/val2014.zip",
        "2014",
        "md5:a3d79f5ed8d289b7a7554ce06a5782b3",
    ),
)
IMAGES = 123_287


def place(
    folder: Path,  # the set under construction
    captions: Path,  # the unpacked caption archive
    name: str,  # "coco" or "flickr30k"
    images: dict[Path, str],  # unpacked folder of pictures -> its name in the set
    count: int,  # how many images there must be
) -> dict:
    "Move captions and pictures in place; refuse a set that is not whole."
    caption_file = next(captions.rglob(f"dataset_{name}.json"), None)
    if caption_file is None:
        raise InputError(
            f"an archive without dataset_{name}.json",
            "Karpathy's caption files",
            "Download it again.",
        )
    caption_file.rename(folder / caption_file.name)
    for source, target in images.items():
        source.rename(folder / target)
    items = karpathy_items(folder / caption_file.name, folder / DATASETS[name].images)
    missing = sum(item.image is None or not item.image.is_file() for item in items)
    if len(items) != count or missing:
        raise InputError(
            f"{len(items)} items, {missing} without their image",
            f"{count} items, each with its image",
            "Download it again.",
        )
    return {
        "items": len(items),
        "languages": ["en"],
        "captions": sum(len(item.texts) for item in items),
        "captions_sha256": sha256_file(folder / caption_file.name),
    }


def build(folder: Path, captions: Path, train: Path, val: Path) -> dict:
    "The set from the three unpacked archives."
    return place(
        folder,
        captions,
        "coco",
        {train / "train2014": "train2014", val / "val2014": "val2014"},
        IMAGES,
    )


if __name__ == "__main__":
    main("coco", lambda: fetch("coco", (CAPTIONS, *PHOTOGRAPHS), build))
