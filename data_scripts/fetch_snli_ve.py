"""SNLI-VE (529,527 + 17,858 + 17,901 hypotheses about Flickr30k photographs, three classes).

Its official format: data/snli_ve/snli_ve_{train,dev,test}.jsonl. Made as its authors make it: the
pairs of SNLI 1.0 on which people agree and whose premise is a Flickr30k caption, assigned to three
parts by the lists of photographs of github.com/necla-ml/SNLI-VE (the last 1,000 of train_val are
dev). The photographs are those of Flickr30k: `python data_scripts/fetch_flickr30k.py`. Stanford's
server states no digest; the number of hypotheses is checked instead.
Licence: SNLI CC-BY-SA-4.0, lists BSD-2-Clause, photographs under their Flickr terms.
"""

from __future__ import annotations

import json
from pathlib import Path

from common import InputError, Package, fetch, main
from fetch_vqa2 import counted

from alignmerge_nb.data.vqa import json_lines

LISTS = "https://raw.githubusercontent.com/necla-ml/SNLI-VE/e6cf745d2e677a2ad878b3cc095cde75c0bbb144/data"
PACKAGES = (
    Package("url", "https://nlp.stanford.edu/projects/snli/snli_1.0.zip", "1.0"),
    Package(
        "url",
        f"{LISTS}/flickr30k_train_val.lst",
        "e6cf745",
        "28eaa036eb6b718c1256565b9d267ea45bd7699cd309964106aef1846014c356",
    ),
    Package(
        "url",
        f"{LISTS}/flickr30k_test.lst",
        "e6cf745",
        "40d78add9de08ec73a269bd5f8fd5230c91e2705fb0b3640f44bc1dcdb329b30",
    ),
)
DEV = 1000  # photographs
STATEMENTS = {"train": 529_527, "val": 17_858, "test": 17_901}


def part_of_image(train_val: list[str], test: list[str]) -> dict[str, str]:
    "Id of a photograph → the part that it belongs to."
    return {
        **dict.fromkeys(train_val[:-DEV], "train"),
        **dict.fromkeys(train_val[-DEV:], "dev"),
        **dict.fromkeys(test, "test"),
    }


def image_of(entry: dict) -> str | None:
    "The Flickr30k photograph of a pair on which people agree, else None."
    image, ending, _ = entry["pairID"].partition(".jpg")
    is_flickr = bool(ending) and not image.startswith("vg_")
    return image if is_flickr and entry["gold_label"] != "-" else None


def build(folder: Path, snli: Path, train_val: Path, test: Path) -> dict:
    "The set from the unpacked archive and the two lists."
    parts = part_of_image(
        (train_val / "flickr30k_train_val.lst").read_text().split(),
        (test / "flickr30k_test.lst").read_text().split(),
    )
    lines: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for name in lines:
        path = next(snli.rglob(f"snli_1.0_{name}.jsonl"), None)
        if path is None:
            raise InputError(
                f"an archive without snli_1.0_{name}.jsonl", "SNLI 1.0", "Download it again."
            )
        for _, entry in json_lines(path):
            image = image_of(entry)
            if image in parts:
                pair = {**entry, "Flickr30K_ID": image}
                line = json.dumps(pair, sort_keys=True, ensure_ascii=False)
                lines[parts[image]].append(f"{line}\n")
    for name, part_lines in lines.items():
        (folder / f"snli_ve_{name}.jsonl").write_text("".join(part_lines), encoding="utf-8")
    return counted(folder, "snli_ve", STATEMENTS, pictures=False)


if __name__ == "__main__":
    main("snli_ve", lambda: fetch("snli_ve", PACKAGES, build))
