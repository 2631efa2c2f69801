"Execute the experiments of a tier; what is done and unchanged is not done again."

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat

from alignmerge_nb.core import InputError, atomic_path, sha256_json
from alignmerge_nb.lab import runs
from alignmerge_nb.paper.rows import source_hash

from .notebooks import execute, experiments, parameters_of, scrub


@dataclass(frozen=True)
class Experiment:
    "An experiment of a tier, and where its results are kept."

    root: Path
    tier: str
    notebook: Path
    parameter_file: Path
    parameters: dict

    @property
    def name(self) -> str:
        "For messages."
        return f"{self.notebook.stem} ({self.tier})"

    @property
    def executed(self) -> Path:
        "The executed notebook."
        return self.root / "paper" / "executed" / self.tier / self.notebook.name

    @property
    def stamp(self) -> Path:
        "What the rows of this checkout were made from; not committed."
        return self.root / "paper" / "runs" / self.tier / f"{self.notebook.stem}.done"

    @property
    def rows(self) -> Path:
        "The published rows."
        return self.root / "paper" / "results" / self.tier / f"{self.notebook.stem}.jsonl"

    def fingerprint(self) -> str:
        "Hash of what decides the rows: parameters, cells, library."
        cells = [cell.source for cell in nbformat.read(self.notebook, 4).cells]
        return sha256_json([self.parameter_file.read_text(), cells, source_hash()])


def run(root: Path, tier: str) -> None:
    "Execute the experiments whose parameters, cells or library changed."
    plan = [
        Experiment(root, tier, notebook, path, parameters_of(notebook, path, tier))
        for notebook, path in experiments(root, tier)
    ]
    if not plan:
        raise InputError(
            f"no parameters of tier {tier}",
            f"paper/params/{tier}/*.yaml",
            "Add the file of an experiment.",
        )
    warn_dirty(experiment.parameters for experiment in plan)
    for experiment in plan:
        fingerprint = experiment.fingerprint()
        if _is_done(experiment, fingerprint):
            print(f"{experiment.name}: unchanged")
        else:
            _run_experiment(experiment, fingerprint)


def warn_dirty(parameters: Iterable[dict]) -> None:
    "Say before hours of computing, not after them, that tables will refuse the rows."
    refuses = any("dirty" not in each.get("allow", ["dirty"]) for each in parameters)
    if refuses and runs.environment()["dirty"]:
        print(
            "paper: uncommitted changes, or no git checkout: rows will say so, "
            "and tables refuse them unless `allow` names 'dirty'",
            flush=True,
        )


def _on_this_machine(fingerprint: str) -> str:
    "The fingerprint together with fetched data and installed versions."
    return sha256_json([fingerprint, runs.data_hash(), runs.environment()["versions"]])


def _is_done(experiment: Experiment, fingerprint: str) -> bool:
    "Whether the experiment was executed on this machine as it stands now."
    if "reads" in experiment.parameters:
        return False  # its rows are those of others
    files = (experiment.executed, experiment.rows, experiment.stamp)
    if not all(file.exists() for file in files):
        return False
    if experiment.stamp.read_text() != _on_this_machine(fingerprint):
        return False
    metadata = nbformat.read(experiment.executed, 4).metadata
    return metadata.get("papermill", {}).get("hash") == fingerprint


def _run_experiment(experiment: Experiment, fingerprint: str) -> None:
    "Execute one experiment, and keep its notebook."
    print(f"{experiment.name}: running", flush=True)
    start = time.perf_counter()
    notebook = execute(experiment.notebook, experiment.parameters, experiment.root)
    executed = scrub(notebook, experiment.root)
    executed.metadata["papermill"] = {"hash": fingerprint, "parameters": experiment.parameters}
    with atomic_path(experiment.executed) as part:
        nbformat.write(executed, part)
    with atomic_path(experiment.stamp) as part:
        part.write_text(_on_this_machine(fingerprint))
    print(f"{experiment.name}: done in {time.perf_counter() - start:.0f} s", flush=True)
