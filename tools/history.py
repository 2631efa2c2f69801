"""What the history tells of the published rows: which cells were ever published, and when.

python tools/history.py cells      published cells that are neither in the rows nor withdrawn in
                                   CHANGELOG.md; exit 1 where there is one
python tools/history.py claims     for every test of a claim, whether it was registered before or
                                   after its rows
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from alignmerge_nb.core import InputError
from alignmerge_nb.paper.claims import read_claims, read_first_rows, registered

ROOT = Path(__file__).resolve().parent.parent
USUAL = {  # settings that a cell's name leaves out
    "image_encoder": "efficientnet-lite0",
    "text_encoder": "minilm",
    "split": "text",
    "unpaired": "none",
}


def git(root: Path, *words: str) -> str:
    "The output of a git command; an `InputError` where there is no history."
    finished = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    if finished.returncode:
        raise InputError(
            f"no history ({finished.stderr.strip()})",
            "a git checkout with its history",
            "Clone the repository as a whole.",
        )
    return finished.stdout


def is_complete(root: Path) -> bool:
    "Whether the checkout has all of its history."
    try:
        return git(root, "rev-parse", "--is-shallow-repository").strip() == "false"
    except InputError:
        return False


# Cells


def cell_name(config: dict) -> str:
    "What a row measures, in words: its configuration without seeds and fixed settings."
    n_pairs = config.get("n_pairs")
    parts = [
        config["tier"],
        config["experiment"],
        config["dataset"],
        config["aligner"],
        config.get("head"),
        "all pairs" if n_pairs is None else f"{n_pairs} pairs",
    ]
    for name, usual in USUAL.items():
        value = config.get(name, usual)
        if value != usual:
            parts.append(value)
    options = config.get("options") or {}
    parts += [f"{name}={value}" for name, value in sorted(options.items())]
    return " ".join(str(part) for part in parts if part is not None)


def cells_of(text: str) -> set[str]:
    "The cells of a file of rows."
    return {cell_name(json.loads(line)["config"]) for line in text.splitlines()}


def present_cells(root: Path) -> set[str]:
    "The cells of the rows in the working tree."
    paths = (root / "paper" / "results").glob("*/*.jsonl")
    return {name for path in paths for name in cells_of(path.read_text())}


def published_cells(root: Path) -> dict[str, str]:
    "Every cell that was ever committed, with the last commit that held it."
    last_commit: dict[str, str] = {}
    commits = git(root, "log", "--reverse", "--format=%h", "--", "paper/results").split()
    for commit in commits:
        for path in changed_rows(root, commit):
            cells = cells_of(git(root, "show", f"{commit}:{path}"))
            last_commit |= dict.fromkeys(cells, commit)
    return last_commit


def changed_rows(root: Path, commit: str) -> list[str]:
    "The files of rows that a commit added or changed."
    options = ("--root", "--no-commit-id", "--name-only", "--diff-filter=AM", "-r")
    return git(root, "diff-tree", *options, commit, "--", "paper/results").split()


def withdrawn_cells(root: Path) -> set[str]:
    "The first column of the table under the heading Withdrawn of CHANGELOG.md."
    text = (root / "CHANGELOG.md").read_text()
    section = text.partition("## Withdrawn")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.M))


def lost_cells(root: Path) -> dict[str, str]:
    "Published cells that are neither there nor withdrawn, with the last commit that held them."
    published = published_cells(root)
    accounted = present_cells(root) | withdrawn_cells(root)
    return {name: commit for name, commit in published.items() if name not in accounted}


def print_cells(root: Path) -> int:
    "Print lost cells and counts; 1 where a cell is lost."
    lost = lost_cells(root)
    for name, commit in sorted(lost.items()):
        print(f"lost: {name} (last in {commit})")
    published = len(published_cells(root))
    withdrawn = len(withdrawn_cells(root))
    print(f"{published} cells were ever published: {withdrawn} are withdrawn, {len(lost)} lost")
    return bool(lost)


# Claims


def first_rows(root: Path) -> dict[str, str]:
    "The date of the first committed row of each experiment, by the history."
    words = ("log", "--reverse", "--format=%x01%cI", "--name-only", "--", "paper/results")
    dates: dict[str, str] = {}
    for entry in git(root, *words).split("\x01"):
        if entry.strip():
            date, *names = entry.split()
            for name in names:
                dates.setdefault(Path(name).stem, date)
    return dates


def print_claims(root: Path) -> int:
    "Print when each test was registered; 0."
    dates = read_first_rows(root / "paper" / "first_rows.yaml")
    for claim in read_claims(root / "paper" / "claims.yaml"):
        for test in claim.tests:
            first = dates.get(test.experiment, "none")
            print(
                f"{claim.id} {test.metric}: registered {registered(test, dates)} "
                f"(written {test.written}, first row {first})"
            )
    return 0


COMMANDS = {"cells": print_cells, "claims": print_claims}


def main(words: list[str], root: Path = ROOT) -> int:
    "Exit status of `cells` or `claims`."
    if len(words) != 1 or words[0] not in COMMANDS:
        print(__doc__)
        return 2
    try:
        return COMMANDS[words[0]](root)
    except InputError as error:
        print(f"history: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
