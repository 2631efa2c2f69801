"""The paper from its experiments: run the notebooks, compute a sample of their rows again, render tables and figures from rows, set the PDF, compare.

python tools/paper.py sample --minutes 10    compute a sample of the published rows again, and compare
python tools/paper.py run                    execute the experiments of tier cpu; what is done is not done again
python tools/paper.py tables --tier full     tables, figures and numbers again, from rows; nothing is computed
python tools/paper.py tables --check         fail where the committed tables are not what the rows give
python tools/paper.py pdf                    paper/main.pdf
python tools/paper.py compare                rows of the working tree against those of the last commit
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import nbformat
import yaml

from alignmerge_nb.core import InputError, atomic_path, lookup, sha256_json

ROOT = Path(__file__).resolve().parent.parent
TIERS = {
    "cpu": "recomputed in minutes on two cores",
    "full": "the published grid, rendered from committed rows",
}
# How far a metric may move between machines: (absolute, relative), the larger counts. The first pattern that fits the whole name decides.
TOLERANCES = {
    r"chosen_.*|flow_taken": "choice",  # a near tie between settings may fall the other way: counted, not judged
    r"choice_lead": "ignored",  # how near a tie it was
    r"macs_(training|total|all_weights)": "ignored",  # arithmetic of as many epochs as early stopping allows
    r".*seconds|.*marginal_error|.*_memory|.*_iterations|inverse_error.*|.*loss|epochs?|(flow_)?(round_trip|sigma|condition|log10|doubts).*": "ignored",  # clocks, and what lies at rounding level or follows a choice
    r"(.+_)?r(1|5|10)": (2.0, 0.0),  # points; controls and chance among them
    r".*accuracy.*|prior|majority|chance": (0.02, 0.0),
    r".*median_rank": (1.0, 0.1),  # 10 %, and one place where ranks are small
    r"pairs|unpaired|gallery|n|n_.*|macs_.*": (0.0, 0.0),  # counts
    r".*": (0.05, 0.1),  # shares, distances, correlations
}
NEAR_TIE = 1e-3  # a lead in mean soft reciprocal rank that another machine may turn round


class CellError(RuntimeError):
    "A notebook failed; the message is all that is printed."


# Experiments


def experiments(root: Path, tier: str) -> list[tuple[Path, Path]]:
    "(notebook, parameters) of every experiment of the tier; parameters without a notebook are an error."
    notebooks = {
        path.stem: path for path in sorted((root / "nbs" / "experiments").glob("[!._]*.ipynb"))
    }
    named = sorted((root / "paper" / "params" / tier).glob("*.yaml"))
    return [(lookup(notebooks, path.stem, "experiment notebook"), path) for path in named]


def parameters_of(notebook: Path, path: Path, tier: str, **further: object) -> dict:
    "The parameters of a run, checked against the notebook: papermill itself lets a misspelt one pass without a word."
    import papermill

    try:
        given = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise InputError(
            f"{path}, which is no YAML ({' '.join(str(error).split())})",
            "one `name: value` a line",
            "Correct the file.",
        ) from error
    if not isinstance(given, dict):
        raise InputError(
            f"{path} holding a {type(given).__name__}",
            "one `name: value` a line",
            "Correct the file.",
        )
    if given.get("tier", tier) != tier:
        raise InputError(
            f"tier: {given['tier']} in {path}",
            f"tier: {tier}, like its folder",
            "Correct the line.",
        )
    known = papermill.inspect_notebook(str(notebook))
    for name in (*given, "tier", *further):
        lookup(known, name, f"parameter of {notebook.name}")
    return {**given, "tier": tier, **further}


def fingerprint(notebook: Path, path: Path) -> str:
    "Hash of what decides the rows: parameters, cells, library."
    from alignmerge_nb.paper.rows import source_hash

    cells = [cell.source for cell in nbformat.read(notebook, 4).cells]
    return sha256_json([path.read_text(), cells, source_hash()])


def here(mark: str) -> str:
    "The fingerprint together with what belongs to this machine: fetched data and installed versions."
    from alignmerge_nb.lab.runs import data_hash, environment

    return sha256_json([mark, data_hash(), environment()["versions"]])


def execute(notebook: Path, parameters: dict, root: Path) -> nbformat.NotebookNode:
    "The executed notebook; a failing cell becomes a short `CellError`."
    import papermill
    from nbclient.exceptions import DeadKernelError

    os.environ |= {
        "ALIGNMERGE_QUIET": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
    }  # no bars in outputs; this environment's kernel, not the user's
    try:
        with tempfile.TemporaryDirectory(prefix="alignmerge-") as folder:
            return papermill.execute_notebook(
                str(notebook),
                str(Path(folder) / notebook.name),
                parameters,
                kernel_name="python3",
                cwd=str(root),
                progress_bar=sys.stderr.isatty(),
                extra_arguments=["--log-level=50"],
            )  # the kernel's own warnings are about the kernel
    except papermill.PapermillExecutionError as error:
        trace = re.sub("\x1b\\[.*?m", "", "\n".join(error.traceback))
        lines = [line.strip() for line in trace.splitlines() if re.match(r"\s*-+> \d", line)][
            :4
        ]  # where it went wrong, from the cell inwards
        what = error.evalue if error.ename == "InputError" else f"{error.ename}: {error.evalue}"
        raise CellError(
            "\n  ".join(
                [
                    what,
                    f"in {notebook.name}, cell {error.cell_index}; finished rows are kept",
                    *lines,
                ]
            )
        ) from None
    except DeadKernelError as error:
        raise CellError(
            f"{notebook.name}: the kernel died, most often for want of memory; finished rows are kept"
        ) from error


def scrub(notebook: nbformat.NotebookNode, root: Path) -> nbformat.NotebookNode:
    "The notebook without what belongs to one machine or one moment: paths, addresses, timings, stderr, widgets."
    places = {
        f"{root}/": "",
        str(root): ".",
        f"{sys.prefix}/": "",
        tempfile.gettempdir() + "/": "",
        f"{Path.home()}/": "~/",
    }

    def plain(value: object, kind: str = "") -> object:
        if isinstance(value, dict):
            return {key: plain(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [plain(each, kind) for each in value]
        if not isinstance(value, str) or (
            kind.startswith(("image/", "application/pdf")) and kind != "image/svg+xml"
        ):
            return value  # base64 is no text
        for place in sorted(places, key=len, reverse=True):
            value = value.replace(place, places[place])
        return re.sub(r"\b0x[0-9a-f]{8,16}\b", "0x…", value)

    notebook.metadata = {
        "kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}
    }
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"  # papermill draws a new one each time
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.get("name") == "stderr" or any(
                "widget" in kind for kind in output.get("data", {})
            ):
                continue
            output = nbformat.from_dict(plain(output))
            if kept and output.output_type == "stream" == kept[-1].output_type:
                kept[-1].text += output.text  # stdout arrives in pieces
            else:
                kept.append(output)
        cell.outputs = kept
    return notebook


def warn_dirty(parameters: Iterable[dict]) -> None:
    "Say before hours of computing, not after them, that tables will refuse the rows."
    from alignmerge_nb.lab.runs import environment

    if environment()["dirty"] and any(
        "dirty" not in each.get("allow", ["dirty"]) for each in parameters
    ):
        print(
            "paper: uncommitted changes, or no git checkout: rows will say so, and tables refuse them unless `allow` names 'dirty'",
            flush=True,
        )


def run(root: Path, tier: str) -> None:
    "Execute the experiments whose parameters, cells or library changed."
    plan = [
        (notebook, path, parameters_of(notebook, path, tier))
        for notebook, path in experiments(root, tier)
    ]
    if not plan:
        raise InputError(
            f"no parameters of tier {tier}",
            f"paper/params/{tier}/*.yaml",
            "Add the file of an experiment.",
        )
    warn_dirty(parameters for *_, parameters in plan)
    for notebook, path, parameters in plan:
        out, mark = root / "paper" / "executed" / tier / notebook.name, fingerprint(notebook, path)
        stamp, rows = (
            root / "paper" / folder / tier / name
            for folder, name in (
                ("runs", f"{notebook.stem}.done"),
                ("results", f"{notebook.stem}.jsonl"),
            )
        )
        if (
            "reads" not in parameters
            and all(file.exists() for file in (out, rows, stamp))
            and stamp.read_text() == here(mark)
            and nbformat.read(out, 4).metadata.get("papermill", {}).get("hash") == mark
        ):
            print(f"{notebook.stem} ({tier}): unchanged")
            continue
        print(f"{notebook.stem} ({tier}): running", flush=True)
        start = time.perf_counter()
        executed = scrub(execute(notebook, parameters, root), root)
        executed.metadata["papermill"] = {"hash": mark, "parameters": parameters}
        with atomic_path(out) as part:
            nbformat.write(executed, part)
        with atomic_path(stamp) as part:
            part.write_text(here(mark))  # not committed: a fresh clone computes its own rows
        print(f"{notebook.stem} ({tier}): done in {time.perf_counter() - start:.0f} s", flush=True)


# Tables


def tables(root: Path, tier: str, place: Path | None = None) -> None:
    "Tables, figures and numbers of the experiments that have rows, below `place` (by default the checkout), from nothing but rows: no data set is in reach. Executed notebooks stay as they are."
    known = [
        (notebook, parameters_of(notebook, path, tier, render_only=True))
        for notebook, path in experiments(root, tier)
    ]
    with_rows = [
        (notebook, parameters)
        for notebook, parameters in known
        if any(
            (root / "paper" / "results" / tier / f"{name}.jsonl").exists()
            for name in parameters.get("reads", [notebook.stem])
        )
    ]
    if not with_rows:
        print(f"no rows of tier {tier}: nothing to render")
    with (
        tempfile.TemporaryDirectory(prefix="alignmerge-") as empty,
        patch.dict(os.environ, ALIGNMERGE_DATA=empty),
    ):
        with ThreadPoolExecutor(
            os.cpu_count() or 1
        ) as pool:  # each notebook has a process of its own
            waiting = {
                pool.submit(execute, notebook, parameters, place or root): notebook.stem
                for notebook, parameters in with_rows
            }
            try:
                for done in as_completed(waiting):
                    done.result()  # raises what the notebook raised
                    print(f"{waiting[done]} ({tier}): rendered", flush=True)
            finally:
                pool.shutdown(cancel_futures=True)


@contextmanager
def rendering_place(root: Path) -> Iterator[Path]:
    "A temporary folder with all that rendering reads; the checkout's tables and figures stay out of reach."
    with tempfile.TemporaryDirectory(prefix="alignmerge-") as name:
        place = Path(name).resolve()
        for part in ("params", "results"):
            if (root / "paper" / part).is_dir():
                shutil.copytree(root / "paper" / part, place / "paper" / part)
        for file in ("paper/claims.yaml", "paper/first_rows.yaml", "CHANGELOG.md"):
            if (root / file).is_file():
                shutil.copyfile(root / file, place / file)
        yield place


def texts(folder: Path) -> dict[str, str]:
    "The tables and numbers in a folder."
    return {
        path.name: path.read_bytes().decode()
        for ending in ("tex", "md")
        for path in folder.glob(f"*.{ending}")
    }


def check_tables(root: Path, tier: str) -> int:
    "1 and a diff where the tables are not what the rows give; nothing is changed."
    with rendering_place(root) as place:
        tables(root, tier, place)
        there, made = (texts(each / "paper" / "tables" / tier) for each in (root, place))
    changed = sorted(name for name in {*there, *made} if there.get(name) != made.get(name))
    for name in changed:
        lines = (each.get(name, "").splitlines(keepends=True) for each in (there, made))
        print(
            "".join(
                difflib.unified_diff(*lines, f"there/{tier}/{name}", f"from rows/{tier}/{name}")
            ),
            end="",
        )
    print(
        f"{len(changed)} files differ: {', '.join(changed)}. Run `make tables TIER={tier}` and commit."
        if changed
        else f"{len(there)} files of tier {tier} are what the rows give"
    )
    return bool(changed)


# The PDF


def write_numbers(root: Path, tier: str) -> None:
    "paper/numbers.tex: the tier, and the numbers of all experiments, of tier `cpu` where one was not run in this tier."
    parts, owner = [f"\\newcommand{{\\tier}}{{{tier}}}\n"], {"tier": "the tier itself"}
    files = {
        path.name: path
        for each in ("cpu", tier)
        for path in sorted((root / "paper" / "tables" / each).glob("*.numbers.tex"))
    }
    if not any(path.parent.name == tier for path in files.values()):
        raise InputError(
            f"no numbers of tier {tier}",
            f"paper/tables/{tier}/*.numbers.tex",
            f"Run `make run tables TIER={tier}`.",
        )
    for name, path in sorted(files.items()):
        text = path.read_text()
        experiment = "".join(
            word.capitalize()
            for word in re.sub(r"\d", "", name.removesuffix(".numbers.tex")).split("_")
        )
        parts.append(
            f"\\newcommand{{\\tier{experiment}}}{{{path.parent.name}}}\n"
        )  # \tierFusion: where its tables and figures lie
        for name in re.findall(r"^\\newcommand\{\\([A-Za-z]+)\}", text, re.M):
            if name in owner:
                raise InputError(
                    f"\\{name} in {path.name} and in {owner[name]}",
                    "every number once",
                    "Rename one of them in its notebook.",
                )
            owner[name] = path.name
        parts.append(text)
    with atomic_path(root / "paper" / "numbers.tex") as part:
        part.write_text("".join(parts))


def latex_errors(log: str) -> list[str]:
    "The error lines of a LaTeX log, each with the two lines that show the place."
    lines = log.splitlines()
    first = [number for number, line in enumerate(lines) if re.match(r"! |\S+\.\w+:\d+: ", line)]
    return [line for number in first[:3] for line in lines[number : number + 3] if line.strip()]


def pdf(root: Path, tier: str) -> int:
    "paper/main.pdf with the numbers, tables and figures of the tier; where there is no LaTeX, a line that says so."
    from alignmerge_nb.paper import tables as report

    paper = root / "paper"
    write_numbers(root, tier)
    if hits := report.check_prose((paper / "main.tex").read_text()):
        raise InputError(
            "numbers typed into the results of main.tex:\n  " + "\n  ".join(hits) + "\n",
            "macros of numbers.tex",
            "Add them to a notebook's numbers.",
        )
    missing = "paper: no {}: numbers.tex is written, main.pdf is not made; `make system` as root installs it."
    if not shutil.which("latexmk"):
        print(missing.format("latexmk"))
        return 0
    dated = subprocess.run(
        ["git", "-C", str(root), "log", "-1", "--format=%ct"], capture_output=True, text=True
    ).stdout.strip()
    surroundings = {
        **os.environ,
        "SOURCE_DATE_EPOCH": dated or "0",
        "FORCE_SOURCE_DATE": "1",
        "max_print_line": "1000",
    }
    words = [
        "latexmk",
        "-pdf",
        "-interaction=nonstopmode",
        "-halt-on-error",
        "-file-line-error",
        "-outdir=build",
        "main.tex",
    ]
    done = subprocess.run(
        words,
        cwd=paper,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    log = (
        (paper / "build" / "main.log").read_text(errors="replace")
        if (paper / "build" / "main.log").exists()
        else ""
    )
    if done.returncode:
        if package := re.search(r"File [`'](\S+\.(?:sty|cls))' not found", log):
            print(missing.format(f"LaTeX package {package[1]}"))
            return 0
        print(
            "\n".join(
                [
                    "paper: LaTeX failed; paper/build/main.log has the rest.",
                    *(latex_errors(log) or done.stdout.splitlines()[-10:]),
                ]
            ),
            file=sys.stderr,
        )
        return 1
    for line in dict.fromkeys(re.findall(r"Warning: ((?:Reference|Citation) .*? undefined)", log)):
        print(f"paper: {line}")
    with atomic_path(paper / "main.pdf") as part:
        shutil.copyfile(paper / "build" / "main.pdf", part)
    print(f"paper/main.pdf ({tier})")
    return 0


# Comparison with the committed rows


def committed(root: Path, tier: str) -> dict[str, str]:
    "The result files of the last commit, by name; none outside a checkout."

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True
        ).stdout

    folder = f"paper/results/{tier}/"
    return {
        name: git("show", f"HEAD:{name}")
        for name in git("ls-tree", "--name-only", "HEAD", folder).splitlines()
        if name.endswith(".jsonl")
    }


def rows_of(text: str) -> dict[str, dict]:
    "Rows by key."
    return {row["key"]: row for row in map(json.loads, text.splitlines())}


def differences(old: dict, new: dict) -> Iterator[tuple[str, float, float, float | str]]:
    "(metric, old, new, what is allowed) where two rows differ in a metric that is not ignored."
    nothing = float("nan")
    for name in sorted({*old["metrics"], *new["metrics"]}):
        rule = next(rule for pattern, rule in TOLERANCES.items() if re.fullmatch(pattern, name))
        a, b = old["metrics"].get(name, nothing), new["metrics"].get(name, nothing)
        if rule != "ignored" and a != b:
            yield name, a, b, rule if rule == "choice" else max(rule[0], rule[1] * abs(a))


class Judged(NamedTuple):
    "How a row that was computed again stands to the published one."

    state: str  # a key of `STATES`
    largest: tuple[float, str]  # the largest difference in units of what is allowed, and in words
    outside: list[str]  # the differences that are not allowed, in words


STATES = {  # in the order of the columns
    "equal": "to the last digit",
    "within": "within tolerance",
    "tie": "settings chosen otherwise, and the published lead is below `NEAR_TIE`",
    "stale": "the published row was made by earlier code, and differs",
    "outside": "outside tolerance: wrong",
}


def judge(old: dict, new: dict) -> Judged:
    "Compare a published row with the same one computed again."
    from alignmerge_nb.paper.rows import is_stale

    found = list(differences(old, new))
    label = " ".join(
        str(old["config"].get(part))
        for part in ("experiment", "dataset", "aligner", "head", "n_pairs", "unpaired", "seed")
    )
    judged = [
        (abs(b - a), allowed, f"{name} of {label}: {a:g} → {b:g} (allowed {allowed:g})")
        for name, a, b, allowed in found
        if allowed != "choice"
    ]
    outside = [text for size, allowed, text in judged if not size <= allowed]
    largest = max(
        ((size / allowed if allowed else size, text) for size, allowed, text in judged),
        default=(0.0, "none"),
    )
    chose = len(judged) < len(found)
    if not found:
        return Judged("equal", largest, [])
    if not outside:
        return Judged("within", largest, [])
    if is_stale(old):
        return Judged("stale", largest, outside)
    if chose and old["metrics"].get("choice_lead", 1.0) < NEAR_TIE:
        return Judged("tie", largest, outside)
    return Judged("outside", largest, outside)


def report(pairs: Iterable[tuple[dict, dict]]) -> int:
    "Print, by experiment, how rows computed again stand to the published ones; 1 where one is wrong."
    by_experiment: dict[str, list[Judged]] = defaultdict(list)
    for old, new in pairs:
        by_experiment[old["config"]["experiment"]].append(judge(old, new))
    every = [each for those in by_experiment.values() for each in those]
    width = max(map(len, by_experiment), default=10)
    print(f"{'':{width}}  rows " + " ".join(f"{state:>7}" for state in STATES))
    for name, those in sorted(by_experiment.items()):
        count = Counter(each.state for each in those)
        print(
            f"{name:{width}} {len(those):>5} "
            + " ".join(f"{count[state] or '–':>7}" for state in STATES)
        )
    for state in ("stale", "tie", "outside"):
        texts_of = [text for each in every if each.state == state for text in each.outside]
        for text in texts_of[: None if state == "outside" else 5]:
            print(f"{state}: {text}")
        if state != "outside" and len(texts_of) > 5:
            print(f"{state}: … and {len(texts_of) - 5} more")
    kept = [each.largest for each in every if each.state in ("equal", "within")]
    if kept:
        print(f"largest allowed difference: {max(kept)[1]}")
    count = Counter(each.state for each in every)
    print(
        f"{len(every)} rows compared: " + ", ".join(f"{count[state]} {state}" for state in STATES)
    )
    return bool(count["outside"])


def compare(root: Path, tier: str) -> int:
    "Say how far the rows of the working tree are from the committed ones; 1 where one is missing or wrong."
    before, after = {}, {}
    for name, text in committed(root, tier).items():
        before |= rows_of(text)
        after |= rows_of((root / name).read_text()) if (root / name).exists() else {}
    if not before:
        print(f"no committed rows of tier {tier} to compare with")
        return 0
    wrong = report((before[key], after[key]) for key in before if key in after)
    missing, added = len({*before} - {*after}), len({*after} - {*before})
    if missing:
        print(
            f"missing: {missing} rows. Run `make run TIER={tier}`; if the parameters changed, commit the new rows."
        )
    if added:
        print(f"new: {added} rows that are not committed")
    return bool(wrong or missing)


# A sample of the published rows, computed again


def sample_plan(
    rows: Sequence[dict],  # published ones
    seconds: float,  # of processes together
    longest: float,  # seconds that a single row may take
) -> list[dict]:
    "Which rows are computed again: experiments share the time evenly, and within one the methods take turns, first seeds and cheap cells first."
    queues: dict[str, list[dict]] = {}
    for row in rows:
        if row["provenance"].get("task"):
            queues.setdefault(row["config"]["experiment"], []).append(row)
    for name, those in queues.items():
        turns: Counter = Counter()
        ordered = []
        for row in sorted(
            those, key=lambda row: (row["config"]["seed"], row["provenance"]["seconds"], row["key"])
        ):
            method = (
                row["config"]["aligner"],
                row["config"]["head"],
                str(row["config"]["options"].get("input")),
            )
            turns[method] += 1
            ordered.append((turns[method], row["provenance"]["seconds"], row["key"], row))
        queues[name] = [row for *_, row in sorted(ordered, key=lambda each: each[:3])]
    spent, chosen = dict.fromkeys(queues, 0.0), []
    while any(queues.values()):
        name = min((name for name in queues if queues[name]), key=spent.__getitem__)
        row = queues[name].pop(0)
        cost = row["provenance"]["seconds"]
        if cost > longest or sum(spent.values()) + cost > seconds:
            continue
        spent[name] += cost
        chosen.append(row)
    return chosen


def by_cost(rows: Iterable[dict]) -> list[dict]:
    "Rows, the longest first, so that no worker is left alone with one at the end."
    return sorted(rows, key=lambda row: -row["provenance"]["seconds"])


def first_of_each_set(rows: Sequence[dict]) -> list[dict]:
    "The cheapest row of each task, data set and pair of encoders: whatever has to be encoded is encoded by these."
    found: dict[tuple, dict] = {}
    for row in reversed(by_cost(rows)):
        config = row["config"]
        found.setdefault(
            (
                row["provenance"]["task"],
                *(config[name] for name in ("dataset", "image_encoder", "text_encoder")),
            ),
            row,
        )
    return list(found.values())


def sample(root: Path, tier: str, minutes: float = 10.0, workers: int = 0, threads: int = 1) -> int:
    "Compute a sample of the published rows again and compare; 1 where one is wrong."
    import torch

    from alignmerge_nb.lab.runs import job_of, run_jobs
    from alignmerge_nb.paper.rows import read_rows

    if not 0 < minutes < 1e6:
        raise InputError(f"minutes = {minutes:g}", "a positive number", "Leave it at its default.")
    if threads < 1 or workers < 0:
        raise InputError(
            f"{workers} workers of {threads} threads",
            "positive numbers",
            "Leave them at their defaults.",
        )
    published = [
        row
        for path in sorted((root / "paper" / "results" / tier).glob("*.jsonl"))
        for row in read_rows(path)
    ]
    if not published:
        raise InputError(
            f"no published rows of tier {tier}",
            f"paper/results/{tier}/*.jsonl",
            "Run the experiments: `make run`.",
        )
    workers = workers or os.cpu_count() or 1
    plan = sample_plan(published, 60 * minutes * workers, 60 * minutes / 3)
    if not plan:
        raise InputError(
            f"minutes = {minutes:g}, in which no row can be computed",
            "time for one row at least",
            "Give more minutes.",
        )
    print(
        f"{len(plan)} of {len(published):,} published rows are computed again, in about {minutes:g} minutes ({workers} workers of {threads} threads)",
        flush=True,
    )
    folder, start = (
        root / "paper" / "runs" / f"{tier}-again-{threads}",
        time.perf_counter(),
    )  # apart from the rows of `run`, which may be the published ones
    first = first_of_each_set(plan)
    run_jobs([job_of(row) for row in first], folder)  # in this process, with all its threads
    if workers == 1:
        torch.set_num_threads(threads)
    again = {
        row["key"]: row
        for row in run_jobs([job_of(row) for row in by_cost(plan)], folder, workers, threads)
    }
    wrong = report((row, again[row["key"]]) for row in plan)
    untried = sum(not row["provenance"].get("task") for row in published)
    if untried:
        print(f"not computed again: {untried} rows of earlier code")
    print(
        f"recomputed {len(plan)} of {len(published):,} published rows in {(time.perf_counter() - start) / 60:.1f} minutes: {'NOT ALL AGREE' if wrong else 'all agree'}"
    )
    return wrong


def main(words: list[str] | None = None, root: Path = ROOT) -> int:
    "Exit status of one subcommand."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    jobs = {
        "sample": (sample, "compute a sample of the published rows again, and compare"),
        "run": (run, "execute the experiments"),
        "tables": (tables, "render tables, figures and numbers from rows"),
        "pdf": (pdf, "set main.pdf"),
        "compare": (compare, "compare with the committed rows"),
    }
    for name, (_, text) in jobs.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: python tools/paper.py {name} --tier full",
        )
        command.add_argument(
            "--tier",
            default="cpu",
            help="; ".join(f"{tier}: {what}" for tier, what in TIERS.items()),
        )
        if name == "tables":
            command.add_argument(
                "--check",
                action="store_true",
                help="change nothing; exit 1 where the tables are not what the rows give",
            )
        if name == "sample":
            command.add_argument(
                "--minutes",
                type=float,
                default=10.0,
                help="time to spend, by the seconds that the published rows record",
            )
            command.add_argument("--workers", type=int, default=0, help="processes; 0: one a core")
            command.add_argument(
                "--threads",
                type=int,
                default=1,
                help="of each worker; the published rows were made with one",
            )
    given = vars(parser.parse_args(words))
    try:
        lookup(TIERS, given["tier"], "tier")
        job = check_tables if given.pop("check", False) else jobs[given["command"]][0]
        given.pop("command")
        return int(job(root, **given) or 0)
    except (InputError, CellError) as error:
        print(f"paper: {error}", file=sys.stderr)
        return 1


def end_kernels() -> None:
    "Kill the processes that this one started, where the system tells which: a notebook's thread waits for its kernel."
    for listed in Path("/proc/self/task").glob("*/children"):
        for child in listed.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


def end(*_: object) -> None:
    "What SIGTERM does."
    end_kernels()
    sys.exit(143)


def run_as_program(words: list[str] | None = None, root: Path = ROOT) -> None:
    "`main`, ended by signals in such a way that kernels and temporary folders end with this process."
    signal.signal(signal.SIGTERM, end)
    try:
        sys.exit(main(words, root))
    except KeyboardInterrupt:
        end_kernels()
        print("paper: interrupted; finished rows are kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run_as_program()
