"""What the history says of the published rows: which cells were ever published, and whether a claim's test is older than its rows.

python tools/history.py cells      published cells that are neither in the rows nor withdrawn in CHANGELOG.md; exit 1 where there is one
python tools/history.py claims     for every test, whether it was registered before or after its rows
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


def git(root: Path, *words: str) -> str:
    "The output of a git command, or a `InputError` that says why there is none."
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"no history ({done.stderr.strip()})",
            "a git checkout with its history",
            "Clone the repository as a whole.",
        )
    return done.stdout


def is_complete(root: Path) -> bool:
    "Whether the checkout has all of its history."
    try:
        return git(root, "rev-parse", "--is-shallow-repository").strip() == "false"
    except InputError:
        return False


def cell_name(config: dict) -> str:
    "What a row measures, in words: its configuration without seeds and settings."
    options = config.get("options") or {}
    pairs = "all pairs" if config.get("n_pairs") is None else f"{config['n_pairs']} pairs"
    parts = [
        config["tier"],
        config["experiment"],
        config["dataset"],
        config["aligner"],
        config.get("head"),
        pairs,
    ]
    encoders = (
        ("image_encoder", "efficientnet-lite0"),
        ("text_encoder", "minilm"),
        ("split", "text"),
        ("unpaired", "none"),
    )
    parts += [config[name] for name, usual in encoders if config.get(name, usual) != usual]
    parts += [f"{name}={value}" for name, value in sorted(options.items())]
    return " ".join(str(part) for part in parts if part is not None)


def cells_of(text: str) -> set[str]:
    "The cells of a file of rows."
    return {cell_name(json.loads(line)["config"]) for line in text.splitlines()}


def present_cells(root: Path) -> set[str]:
    "The cells of the rows in the working tree."
    return {
        name
        for path in (root / "paper" / "results").glob("*/*.jsonl")
        for name in cells_of(path.read_text())
    }


def published_cells(root: Path) -> dict[str, str]:
    "Every cell that was ever committed, with the last commit that held it."
    found = {}
    for commit in git(root, "log", "--reverse", "--format=%h", "--", "paper/results").split():
        changed = git(
            root,
            "diff-tree",
            "--root",
            "--no-commit-id",
            "--name-only",
            "--diff-filter=AM",
            "-r",
            commit,
            "--",
            "paper/results",
        ).split()
        for name in changed:
            found |= dict.fromkeys(cells_of(git(root, "show", f"{commit}:{name}")), commit)
    return found


def withdrawn_cells(root: Path) -> set[str]:
    "The cells under the heading Withdrawn of CHANGELOG.md: the first column of its table, in backquotes."
    text = (root / "CHANGELOG.md").read_text()
    part = text.partition("## Withdrawn")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", part, re.M))


def lost_cells(root: Path) -> dict[str, str]:
    "Published cells that are neither there nor withdrawn, with the last commit that held them."
    ever = published_cells(root)
    kept = present_cells(root) | withdrawn_cells(root)
    return {name: commit for name, commit in ever.items() if name not in kept}


def first_rows(root: Path) -> dict[str, str]:
    "The date of the first committed row of each experiment, by the history."
    found: dict[str, str] = {}
    for line in git(
        root, "log", "--reverse", "--format=%x01%cI", "--name-only", "--", "paper/results"
    ).split("\x01"):
        date, *names = line.split() if line.strip() else [""]
        for name in names:
            found.setdefault(Path(name).stem, date)
    return found


def main(words: list[str], root: Path = ROOT) -> int:
    "Exit status of `cells` or `claims`."
    try:
        if words == ["cells"]:
            lost = lost_cells(root)
            for name, commit in sorted(lost.items()):
                print(f"lost: {name} (last in {commit})")
            print(
                f"{len(published_cells(root))} cells were ever published: {len(withdrawn_cells(root))} are withdrawn, {len(lost)} lost"
            )
            return bool(lost)
        if words == ["claims"]:
            dates = read_first_rows(root / "paper" / "first_rows.yaml")
            for claim in read_claims(root / "paper" / "claims.yaml"):
                for test in claim.tests:
                    print(
                        f"{claim.id} {test.metric}: registered {registered(test, dates)} (written {test.written}, first row {dates.get(test.experiment, 'none')})"
                    )
            return 0
        print(__doc__)
        return 2
    except InputError as error:
        print(f"history: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
