"How far rows that were computed again are from the published ones."

from __future__ import annotations

import json
import math
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from alignmerge_nb.paper import rows as published


class Tolerance(NamedTuple):
    "How far a metric may move between machines; the larger of the two counts."

    absolute: float
    relative: float

    def around(self, value: float) -> float:
        "The largest difference that is allowed."
        return max(self.absolute, self.relative * abs(value))


IGNORED = (
    r".*seconds|.*_memory|.*_iterations|epochs?",  # clocks and counts of steps
    r".*marginal_error|inverse_error.*|.*loss",  # at rounding level
    r"(flow_)?(round_trip|sigma|condition|log10|doubts).*",  # at rounding level, or after a choice
    r"choice_lead",  # how near a tie it was
    r"macs_(training|total|all_weights)",  # of as many epochs as early stopping allows
)
CHOICES = r"chosen_.*|flow_taken"  # may fall the other way in a near tie: counted, not judged
TOLERANCES = {  # the first pattern that fits the whole name decides
    r"(.+_)?r(1|5|10)": Tolerance(2.0, 0.0),  # points; controls and chance among them
    r".*accuracy.*|prior|majority|chance": Tolerance(0.02, 0.0),
    r".*median_rank": Tolerance(1.0, 0.1),  # one place where ranks are small
    r"pairs|unpaired|gallery|n|n_.*|macs_.*": Tolerance(0.0, 0.0),  # counts
    r".*": Tolerance(0.05, 0.1),  # shares, distances, correlations
}
NEAR_TIE = 1e-3  # a lead in mean soft reciprocal rank that another machine may turn round

State = Literal["equal", "within", "tie", "stale", "outside"]
STATES: dict[State, str] = {  # in the order of the columns
    "equal": "to the last digit",
    "within": "within tolerance",
    "tie": "settings chosen otherwise, and the published lead is below `NEAR_TIE`",
    "stale": "the published row was made by earlier code, and differs",
    "outside": "outside tolerance: wrong",
}


class Difference(NamedTuple):
    "A metric in which two rows differ."

    metric: str
    old: float
    new: float
    allowed: float

    @property
    def size(self) -> float:
        "How far apart the values are; NaN where one row lacks the metric."
        return abs(self.new - self.old)

    @property
    def is_allowed(self) -> bool:
        "Whether the values are within tolerance."
        return self.size <= self.allowed

    def describe(self, row: str) -> str:
        "The difference in words; `row` names the row."
        values = f"{self.old:g} → {self.new:g}"
        return f"{self.metric} of {row}: {values} (allowed {self.allowed:g})"

    @property
    def in_tolerances(self) -> float:
        "The size in units of what is allowed."
        return self.size / self.allowed if self.allowed else self.size


class Judged(NamedTuple):
    "How a row that was computed again stands to the published one."

    state: State
    largest: tuple[float, str]  # the largest difference in units of what is allowed, and in words
    outside: list[str]  # the differences that are not allowed, in words


def differences(old: dict, new: dict) -> Iterator[Difference]:
    "Where two rows differ in a metric that is judged."
    for name in sorted({*old["metrics"], *new["metrics"]}):
        if _fits(CHOICES, name) or any(_fits(pattern, name) for pattern in IGNORED):
            continue
        tolerance = next(each for pattern, each in TOLERANCES.items() if _fits(pattern, name))
        a = old["metrics"].get(name, math.nan)
        b = new["metrics"].get(name, math.nan)
        if a != b:
            yield Difference(name, a, b, tolerance.around(a))


def _fits(pattern: str, name: str) -> bool:
    "Whether a pattern fits a whole name."
    return re.fullmatch(pattern, name) is not None


def _chose_otherwise(old: dict, new: dict) -> bool:
    "Whether the two runs selected different settings."
    a = old["metrics"]
    b = new["metrics"]
    choices = [name for name in {*a, *b} if _fits(CHOICES, name)]
    return any(a.get(name, math.nan) != b.get(name, math.nan) for name in choices)


def judge(old: dict, new: dict) -> Judged:
    "Compare a published row with the same one computed again."
    parts = ("experiment", "dataset", "aligner", "head", "n_pairs", "unpaired", "seed")
    name = " ".join(str(old["config"].get(part)) for part in parts)
    found = list(differences(old, new))
    chose_otherwise = _chose_otherwise(old, new)
    outside = [each.describe(name) for each in found if not each.is_allowed]
    sizes = [(each.in_tolerances, each.describe(name)) for each in found]
    largest = max(sizes, default=(0.0, "none"))
    if not found and not chose_otherwise:
        return Judged("equal", largest, [])
    if not outside:
        return Judged("within", largest, [])
    if published.is_stale(old):
        return Judged("stale", largest, outside)
    if chose_otherwise and old["metrics"].get("choice_lead", 1.0) < NEAR_TIE:
        return Judged("tie", largest, outside)
    return Judged("outside", largest, outside)


def report(pairs: Iterable[tuple[dict, dict]]) -> int:
    "Print how rows computed again stand to the published ones; 1 where one is wrong."
    by_experiment: dict[str, list[Judged]] = {}
    for old, new in pairs:
        by_experiment.setdefault(old["config"]["experiment"], []).append(judge(old, new))
    everything = [each for judged in by_experiment.values() for each in judged]
    _print_table(by_experiment)
    for state in ("stale", "tie", "outside"):
        _print_differences(state, everything)
    allowed = [each.largest for each in everything if each.state in ("equal", "within")]
    if allowed:
        print(f"largest allowed difference: {max(allowed)[1]}")
    count = Counter(each.state for each in everything)
    counts = ", ".join(f"{count[state]} {state}" for state in STATES)
    print(f"{len(everything)} rows compared: {counts}")
    return bool(count["outside"])


def _print_table(by_experiment: dict[str, list[Judged]]) -> None:
    "Print how many rows of each experiment are in each state."
    width = max(map(len, by_experiment), default=10)
    print(f"{'':{width}}  rows " + " ".join(f"{state:>7}" for state in STATES))
    for name, judged in sorted(by_experiment.items()):
        count = Counter(each.state for each in judged)
        cells = " ".join(f"{count[state] or '–':>7}" for state in STATES)
        print(f"{name:{width}} {len(judged):>5} {cells}")


def _print_differences(state: State, judged: Iterable[Judged]) -> None:
    "Print the differences of the rows in a state: all that are wrong, five of the others."
    texts = [text for each in judged if each.state == state for text in each.outside]
    shown = len(texts) if state == "outside" else 5
    for text in texts[:shown]:
        print(f"{state}: {text}")
    if len(texts) > shown:
        print(f"{state}: … and {len(texts) - shown} more")


def committed(root: Path, tier: str) -> dict[str, str]:
    "The result files of the last commit, by name; none outside a checkout."
    folder = f"paper/results/{tier}/"
    names = _git(root, "ls-tree", "--name-only", "HEAD", folder).splitlines()
    return {name: _git(root, "show", f"HEAD:{name}") for name in names if name.endswith(".jsonl")}


def _git(root: Path, *words: str) -> str:
    "The output of a git command; '' where it fails."
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True).stdout


def _rows_of(text: str) -> dict[str, dict]:
    "Rows by key."
    return {row["key"]: row for row in map(json.loads, text.splitlines())}


def compare(root: Path, tier: str) -> int:
    "Compare the rows of the working tree with the committed ones; 1 where one is missing or wrong."
    before: dict[str, dict] = {}
    after: dict[str, dict] = {}
    for name, text in committed(root, tier).items():
        before |= _rows_of(text)
        if (root / name).exists():
            after |= _rows_of((root / name).read_text())
    if not before:
        print(f"no committed rows of tier {tier} to compare with")
        return 0
    wrong = report((before[key], after[key]) for key in before if key in after)
    missing = len(before.keys() - after.keys())
    added = len(after.keys() - before.keys())
    if missing:
        print(
            f"missing: {missing} rows. Run `make run TIER={tier}`; "
            "if the parameters changed, commit the new rows."
        )
    if added:
        print(f"new: {added} rows that are not committed")
    return bool(wrong or missing)
