"""Derived statements: two tasks of NLVR2's kind and two of SNLI-VE's.

They are made from easy-VQA, emoji and Tux Paint, which must have been fetched:
data/{nlvr_shapes,nlvr_pictures,entail_shapes,entail_pictures}/statements.jsonl.
Derived, not a published benchmark: see the notebook `lab/06_derived`. The same manifests and the
same seed give the same files. Licences: those of the sets.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from common import InputError, Package, data_home, fetch, main, sha256_file

from alignmerge_nb.lab.derived import DERIVED, derive, write_statements

SEED = 0


def make(
    name: str,  # a key of DERIVED
    what: str,
    home: Path,
    folder: Path,  # the set under construction
    *_: Path,  # the manifests, which `derive` reads in their place
) -> dict:
    "Derive the statements of one task."
    count = write_statements(folder / "statements.jsonl", derive(name, SEED, home=home))
    return {"what": what, "items": count}


def run(home: Path | None = None) -> None:
    "Make those tasks that are not there yet, or whose sets have changed."
    home = Path(home or data_home())
    for name, (_, sources, what) in DERIVED.items():
        manifests = [home / source / "manifest.jsonl" for source in sources]
        missing = [path for path in manifests if not path.is_file()]
        if missing:
            raise InputError(
                f"no {missing[0]}",
                "the sets that the statements are derived from",
                f"Run `python data_scripts/fetch_{missing[0].parent.name}.py`.",
            )
        packages = tuple(
            Package("file", str(path), f"seed {SEED}", sha256_file(path)) for path in manifests
        )
        fetch(name, packages, partial(make, name, what, home), home=home)


if __name__ == "__main__":
    main("statements", run)
