"Tables, figures and numbers, from nothing but published rows."

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from .notebooks import execute, experiments, parameters_of

FOLDERS = ("paper/params", "paper/results")  # that rendering reads
FILES = ("paper/claims.yaml", "paper/first_rows.yaml", "CHANGELOG.md")


def tables(root: Path, tier: str, target: Path | None = None) -> None:
    "Render the experiments that have rows, below `target` (by default the checkout)."
    known = [
        (notebook, parameters_of(notebook, path, tier, render_only=True))
        for notebook, path in experiments(root, tier)
    ]
    with_rows = [each for each in known if _has_rows(*each, root)]
    if not with_rows:
        print(f"no rows of tier {tier}: nothing to render")
    with tempfile.TemporaryDirectory(prefix="alignmerge-") as empty:
        without_data = patch.dict(os.environ, ALIGNMERGE_DATA=empty)
        with without_data, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            rendering = {
                pool.submit(execute, notebook, parameters, target or root): notebook.stem
                for notebook, parameters in with_rows
            }  # each notebook has a process of its own
            try:
                for finished in as_completed(rendering):
                    finished.result()  # raises what the notebook raised
                    print(f"{rendering[finished]} ({tier}): rendered", flush=True)
            finally:
                pool.shutdown(cancel_futures=True)


def _has_rows(notebook: Path, parameters: dict, root: Path) -> bool:
    "Whether there are rows to render: the experiment's own, or those that it reads."
    folder = root / "paper" / "results" / parameters["tier"]
    names = parameters.get("reads", [notebook.stem])
    return any((folder / f"{name}.jsonl").exists() for name in names)


@contextmanager
def rendering_place(root: Path) -> Iterator[Path]:
    "A temporary folder with all that rendering reads; the checkout stays out of reach."
    with tempfile.TemporaryDirectory(prefix="alignmerge-") as name:
        place = Path(name).resolve()
        for folder in FOLDERS:
            if (root / folder).is_dir():
                shutil.copytree(root / folder, place / folder)
        for file in FILES:
            if (root / file).is_file():
                shutil.copyfile(root / file, place / file)
        yield place


def texts(folder: Path) -> dict[str, str]:
    "The tables and numbers in a folder."
    paths = [*folder.glob("*.tex"), *folder.glob("*.md")]
    return {path.name: path.read_bytes().decode() for path in paths}


def check_tables(root: Path, tier: str) -> int:
    "1 and a diff where the tables are not what the rows give; nothing is changed."
    with rendering_place(root) as place:
        tables(root, tier, place)
        committed = texts(root / "paper" / "tables" / tier)
        rendered = texts(place / "paper" / "tables" / tier)
    names = sorted({*committed, *rendered})
    changed = [name for name in names if committed.get(name) != rendered.get(name)]
    for name in changed:
        difference = difflib.unified_diff(
            committed.get(name, "").splitlines(keepends=True),
            rendered.get(name, "").splitlines(keepends=True),
            f"there/{tier}/{name}",
            f"from rows/{tier}/{name}",
        )
        print("".join(difference), end="")
    if changed:
        listed = ", ".join(changed)
        print(f"{len(changed)} files differ: {listed}. Run `make tables TIER={tier}` and commit.")
    else:
        print(f"{len(committed)} files of tier {tier} are what the rows give")
    return bool(changed)
