"A sample of the published rows, computed again."

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from alignmerge_nb.core import InputError
from alignmerge_nb.lab.runs import job_of, run_jobs
from alignmerge_nb.paper.rows import read_rows

from .comparison import report


def sample_plan(
    rows: Sequence[dict],  # published ones
    seconds: float,  # of processes together
    longest: float,  # seconds that a single row may take
) -> list[dict]:
    "Which rows are computed again: experiments share the time evenly, methods take turns."
    by_experiment: dict[str, list[dict]] = {}
    for row in rows:
        if row["provenance"].get("task"):
            by_experiment.setdefault(row["config"]["experiment"], []).append(row)
    queues = {name: _in_turns(queue) for name, queue in by_experiment.items()}
    spent = dict.fromkeys(queues, 0.0)
    chosen = []
    while any(queues.values()):
        name = min((name for name in queues if queues[name]), key=spent.__getitem__)
        row = queues[name].pop(0)
        cost = _seconds(row)
        if cost <= longest and sum(spent.values()) + cost <= seconds:
            spent[name] += cost
            chosen.append(row)
    return chosen


def _in_turns(rows: Sequence[dict]) -> list[dict]:
    "The rows of an experiment: one of each method, then the next of each; cheap ones first."
    turns: Counter = Counter()
    turn_of = {}
    for row in sorted(rows, key=lambda row: (row["config"]["seed"], _seconds(row), row["key"])):
        method = _method(row)
        turns[method] += 1
        turn_of[row["key"]] = turns[method]
    return sorted(rows, key=lambda row: (turn_of[row["key"]], _seconds(row), row["key"]))


def _method(row: dict) -> tuple[str, str | None, str]:
    "The aligner, the head and the kind of tokens of a row."
    config = row["config"]
    return config["aligner"], config["head"], str(config["options"].get("input"))


def _seconds(row: dict) -> float:
    "How long the published row took."
    return row["provenance"]["seconds"]


def by_cost(rows: Iterable[dict]) -> list[dict]:
    "Rows, the longest first, so that no worker is left alone with one at the end."
    return sorted(rows, key=lambda row: -_seconds(row))


def first_of_each_set(rows: Sequence[dict]) -> list[dict]:
    "The cheapest row of each task, data set and pair of encoders: these encode what is missing."
    cheapest: dict[tuple, dict] = {}
    for row in reversed(by_cost(rows)):
        config = row["config"]
        encoded = (config["dataset"], config["image_encoder"], config["text_encoder"])
        cheapest.setdefault((row["provenance"]["task"], *encoded), row)
    return list(cheapest.values())


def sample(root: Path, tier: str, minutes: float = 10.0, workers: int = 0, threads: int = 1) -> int:
    "Compute a sample of the published rows again and compare; 1 where one is wrong."
    _check_options(minutes, workers, threads)
    rows = _published_rows(root, tier)
    workers = workers or os.cpu_count() or 1
    plan = sample_plan(rows, 60 * minutes * workers, 60 * minutes / 3)
    if not plan:
        raise InputError(
            f"minutes = {minutes:g}, in which no row can be computed",
            "time for one row at least",
            "Give more minutes.",
        )
    print(
        f"{len(plan)} of {len(rows):,} published rows are computed again, "
        f"in about {minutes:g} minutes ({workers} workers of {threads} threads)",
        flush=True,
    )
    start = time.perf_counter()
    folder = root / "paper" / "runs" / f"{tier}-again-{threads}"
    again = _compute_again(plan, folder, workers, threads)
    wrong = report((row, again[row["key"]]) for row in plan)
    earlier = sum(not row["provenance"].get("task") for row in rows)
    if earlier:
        print(f"not computed again: {earlier} rows of earlier code")
    passed = (time.perf_counter() - start) / 60
    verdict = "NOT ALL AGREE" if wrong else "all agree"
    counts = f"{len(plan)} of {len(rows):,} published rows"
    print(f"recomputed {counts} in {passed:.1f} minutes: {verdict}")
    return wrong


def _check_options(minutes: float, workers: int, threads: int) -> None:
    "Raise an `InputError` for options that make no sense."
    if not 0 < minutes < 1e6:
        raise InputError(f"minutes = {minutes:g}", "a positive number", "Leave it at its default.")
    if threads < 1 or workers < 0:
        raise InputError(
            f"{workers} workers of {threads} threads",
            "positive numbers",
            "Leave them at their defaults.",
        )


def _published_rows(root: Path, tier: str) -> list[dict]:
    "All published rows of the tier."
    paths = sorted((root / "paper" / "results" / tier).glob("*.jsonl"))
    rows = [row for path in paths for row in read_rows(path)]
    if not rows:
        raise InputError(
            f"no published rows of tier {tier}",
            f"paper/results/{tier}/*.jsonl",
            "Run the experiments: `make run`.",
        )
    return rows


def _compute_again(
    plan: Sequence[dict],
    folder: Path,  # apart from the rows of `run`, which may be the published ones
    workers: int,
    threads: int,
) -> dict[str, dict]:
    "The rows of the plan, computed again, by key."
    encoding = [job_of(row) for row in first_of_each_set(plan)]
    run_jobs(encoding, folder)  # in this process, with all its threads
    if workers == 1:
        torch.set_num_threads(threads)
    jobs = [job_of(row) for row in by_cost(plan)]
    return {row["key"]: row for row in run_jobs(jobs, folder, workers, threads)}
