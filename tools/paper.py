"""The paper from its experiments: run the notebooks, render tables and figures from rows, set the PDF, compare with the committed rows.

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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import nbformat
import yaml

from alignmerge_nb.core import BadInput, atomic_path, look_up, sha256_json

ROOT = Path(__file__).resolve().parent.parent
TIERS = {"cpu": "recomputed in minutes on two cores", "full": "the published grid, rendered from committed rows"}
# How far a metric may move between machines: (absolute, relative), the larger counts. The first pattern that fits the whole name decides.
TOLERANCES = {
    r"chosen_.*|flow_taken": "choice",  # a tie between settings may fall the other way: counted, not judged
    r".*seconds|.*marginal_error|.*_memory|.*_iterations|inverse_error.*|.*loss|epochs?|(flow_)?(round_trip|sigma|condition|log10|doubts).*": "ignored",  # clocks, and what lies at rounding level or follows a choice
    r"(.+_)?r(1|5|10)": (2.0, 0.0),  # points; controls and chance among them
    r".*accuracy.*|prior|majority|chance": (0.02, 0.0),
    r".*median_rank": (1.0, 0.1),  # 10 %, and one place where ranks are small
    r"pairs|unpaired|gallery|n|n_.*|macs_.*": (0.0, 0.0),  # counts
    r".*": (0.05, 0.1),  # shares, distances, correlations
}


class CellError(RuntimeError):
    "A notebook failed; the message is all that is printed."


# Experiments


def experiments(root: Path, tier: str) -> list[tuple[Path, Path]]:
    "(notebook, parameters) of every experiment of the tier; parameters without a notebook are an error."
    notebooks = {path.stem: path for path in sorted((root / "nbs" / "experiments").glob("[!._]*.ipynb"))}
    named = sorted((root / "paper" / "params" / tier).glob("*.yaml"))
    return [(look_up(notebooks, path.stem, "experiment notebook"), path) for path in named]


def parameters_of(notebook: Path, path: Path, tier: str, **further: object) -> dict:
    "The parameters of a run, checked against the notebook: papermill itself lets a misspelt one pass without a word."
    import papermill

    try: given = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error: raise BadInput(f"{path}, which is no YAML ({' '.join(str(error).split())})", "one `name: value` a line", "Correct the file.") from error
    if not isinstance(given, dict): raise BadInput(f"{path} holding a {type(given).__name__}", "one `name: value` a line", "Correct the file.")
    if given.get("tier", tier) != tier: raise BadInput(f"tier: {given['tier']} in {path}", f"tier: {tier}, like its folder", "Correct the line.")
    known = papermill.inspect_notebook(str(notebook))
    for name in (*given, "tier", *further): look_up(known, name, f"parameter of {notebook.name}")
    return {**given, "tier": tier, **further}


def fingerprint(notebook: Path, path: Path) -> str:
    "Hash of what decides the rows: parameters, cells, library."
    from alignmerge_nb.runs import source_hash

    cells = [cell.source for cell in nbformat.read(notebook, 4).cells]
    return sha256_json([path.read_text(), cells, source_hash()])


def here(mark: str) -> str:
    "The fingerprint together with what belongs to this machine: fetched data and installed versions."
    from alignmerge_nb.runs import data_hash, surroundings

    return sha256_json([mark, data_hash(), surroundings()["versions"]])


def execute(notebook: Path, parameters: dict, root: Path) -> nbformat.NotebookNode:
    "The executed notebook; a failing cell becomes a short `CellError`."
    import papermill
    from nbclient.exceptions import DeadKernelError

    os.environ |= {"ALIGNMERGE_QUIET": "1", "JUPYTER_PREFER_ENV_PATH": "1"}  # no bars in outputs; this environment's kernel, not the user's
    try:
        with tempfile.TemporaryDirectory(prefix="alignmerge-") as folder:
            return papermill.execute_notebook(
                str(notebook), str(Path(folder) / notebook.name), parameters, kernel_name="python3", cwd=str(root),
                progress_bar=sys.stderr.isatty(), extra_arguments=["--log-level=50"])  # the kernel's own warnings are about the kernel
    except papermill.PapermillExecutionError as error:
        trace = re.sub("\x1b\\[.*?m", "", "\n".join(error.traceback))
        lines = [line.strip() for line in trace.splitlines() if re.match(r"\s*-+> \d", line)][:4]  # where it went wrong, from the cell inwards
        what = error.evalue if error.ename == "BadInput" else f"{error.ename}: {error.evalue}"
        raise CellError("\n  ".join([what, f"in {notebook.name}, cell {error.cell_index}; finished rows are kept", *lines])) from None
    except DeadKernelError as error: raise CellError(f"{notebook.name}: the kernel died, most often for want of memory; finished rows are kept") from error


def scrub(notebook: nbformat.NotebookNode, root: Path) -> nbformat.NotebookNode:
    "The notebook without what belongs to one machine or one moment: paths, addresses, timings, stderr, widgets."
    places = {f"{root}/": "", str(root): ".", f"{sys.prefix}/": "", tempfile.gettempdir() + "/": "", f"{Path.home()}/": "~/"}

    def plain(value: object, kind: str = "") -> object:
        if isinstance(value, dict): return {key: plain(each, key) for key, each in value.items()}
        if isinstance(value, list): return [plain(each, kind) for each in value]
        if not isinstance(value, str) or (kind.startswith(("image/", "application/pdf")) and kind != "image/svg+xml"): return value  # base64 is no text
        for place in sorted(places, key=len, reverse=True): value = value.replace(place, places[place])
        return re.sub(r"\b0x[0-9a-f]{8,16}\b", "0x…", value)

    notebook.metadata = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if "injected-parameters" in cell.metadata.get("tags", []): cell.id = "injected-parameters"  # papermill draws a new one each time
        if cell.cell_type != "code": continue
        kept = []
        for output in cell.outputs:
            if output.get("name") == "stderr" or any("widget" in kind for kind in output.get("data", {})): continue
            output = nbformat.from_dict(plain(output))
            if kept and output.output_type == "stream" == kept[-1].output_type: kept[-1].text += output.text  # stdout arrives in pieces
            else: kept.append(output)
        cell.outputs = kept
    return notebook


def warn_dirty(parameters: Iterable[dict]) -> None:
    "Say before hours of computing, not after them, that tables will refuse the rows."
    from alignmerge_nb.runs import surroundings

    if surroundings()["dirty"] and any("dirty" not in each.get("allow", ["dirty"]) for each in parameters):
        print("paper: uncommitted changes, or no git checkout: rows will say so, and tables refuse them unless `allow` names 'dirty'", flush=True)


def run(root: Path, tier: str) -> None:
    "Execute the experiments whose parameters, cells or library changed."
    plan = [(notebook, path, parameters_of(notebook, path, tier)) for notebook, path in experiments(root, tier)]
    if not plan: raise BadInput(f"no parameters of tier {tier}", f"paper/params/{tier}/*.yaml", "Add the file of an experiment.")
    warn_dirty(parameters for *_, parameters in plan)
    for notebook, path, parameters in plan:
        out, mark = root / "paper" / "executed" / tier / notebook.name, fingerprint(notebook, path)
        stamp, rows = (root / "paper" / folder / tier / name for folder, name in (("runs", f"{notebook.stem}.done"), ("results", f"{notebook.stem}.jsonl")))
        if "reads" not in parameters and all(file.exists() for file in (out, rows, stamp)) and stamp.read_text() == here(mark) and nbformat.read(out, 4).metadata.get("papermill", {}).get("hash") == mark:
            print(f"{notebook.stem} ({tier}): unchanged")
            continue
        print(f"{notebook.stem} ({tier}): running", flush=True)
        start = time.perf_counter()
        executed = scrub(execute(notebook, parameters, root), root)
        executed.metadata["papermill"] = {"hash": mark, "parameters": parameters}
        with atomic_path(out) as part: nbformat.write(executed, part)
        with atomic_path(stamp) as part: part.write_text(here(mark))  # not committed: a fresh clone computes its own rows
        print(f"{notebook.stem} ({tier}): done in {time.perf_counter() - start:.0f} s", flush=True)


# Tables


def tables(root: Path, tier: str) -> None:
    "Tables, figures and numbers of the experiments that have rows, from nothing but rows: no data set is in reach. Executed notebooks stay as they are."
    known = [(notebook, parameters_of(notebook, path, tier, render_only=True)) for notebook, path in experiments(root, tier)]
    with_rows = [(notebook, parameters) for notebook, parameters in known if any((root / "paper" / "results" / tier / f"{name}.jsonl").exists() for name in parameters.get("reads", [notebook.stem]))]
    if not with_rows: print(f"no rows of tier {tier}: nothing to render")
    with tempfile.TemporaryDirectory(prefix="alignmerge-") as empty, patch.dict(os.environ, ALIGNMERGE_DATA=empty):
        for notebook, parameters in with_rows:
            execute(notebook, parameters, root)
            print(f"{notebook.stem} ({tier}): rendered", flush=True)


@contextmanager
def set_aside(*folders: Path) -> Iterator[list[Path]]:
    "Copies of folders, which are empty inside the block and as before after it."
    with tempfile.TemporaryDirectory(prefix="alignmerge-") as place:
        copies = [Path(place) / str(number) for number in range(len(folders))]
        for folder, copy in zip(folders, copies):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder, copy)
        try:
            for folder in folders: shutil.rmtree(folder)
            yield copies
        finally:
            for folder, copy in zip(folders, copies):
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(copy, folder)


def texts(folder: Path) -> dict[str, str]:
    "The tables and numbers in a folder."
    return {path.name: path.read_bytes().decode() for ending in ("tex", "md") for path in folder.glob(f"*.{ending}")}


def check_tables(root: Path, tier: str) -> int:
    "1 and a diff where the tables are not what the rows give; nothing is changed."
    folder = root / "paper" / "tables" / tier
    with set_aside(folder, root / "paper" / "figures" / tier) as (copy, _):
        tables(root, tier)
        there, made = texts(copy), texts(folder)
    changed = sorted(name for name in {*there, *made} if there.get(name) != made.get(name))
    for name in changed:
        lines = (each.get(name, "").splitlines(keepends=True) for each in (there, made))
        print("".join(difflib.unified_diff(*lines, f"there/{tier}/{name}", f"from rows/{tier}/{name}")), end="")
    print(f"{len(changed)} files differ: {', '.join(changed)}. Run `make tables TIER={tier}` and commit." if changed else f"{len(there)} files of tier {tier} are what the rows give")
    return bool(changed)


# The PDF


def write_numbers(root: Path, tier: str) -> None:
    "paper/numbers.tex: the tier, and the numbers of all experiments, of tier `cpu` where one was not run in this tier."
    parts, owner = [f"\\newcommand{{\\tier}}{{{tier}}}\n"], {"tier": "the tier itself"}
    files = {path.name: path for each in ("cpu", tier) for path in sorted((root / "paper" / "tables" / each).glob("*.numbers.tex"))}
    if not any(path.parent.name == tier for path in files.values()): raise BadInput(f"no numbers of tier {tier}", f"paper/tables/{tier}/*.numbers.tex", f"Run `make run tables TIER={tier}`.")
    for name, path in sorted(files.items()):
        text = path.read_text()
        experiment = "".join(word.capitalize() for word in re.sub(r"\d", "", name.removesuffix(".numbers.tex")).split("_"))
        parts.append(f"\\newcommand{{\\tier{experiment}}}{{{path.parent.name}}}\n")  # \tierFusion: where its tables and figures lie
        for name in re.findall(r"^\\newcommand\{\\([A-Za-z]+)\}", text, re.M):
            if name in owner: raise BadInput(f"\\{name} in {path.name} and in {owner[name]}", "every number once", "Rename one of them in its notebook.")
            owner[name] = path.name
        parts.append(text)
    with atomic_path(root / "paper" / "numbers.tex") as part: part.write_text("".join(parts))


def latex_errors(log: str) -> list[str]:
    "The error lines of a LaTeX log, each with the two lines that show the place."
    lines = log.splitlines()
    first = [number for number, line in enumerate(lines) if re.match(r"! |\S+\.\w+:\d+: ", line)]
    return [line for number in first[:3] for line in lines[number : number + 3] if line.strip()]


def pdf(root: Path, tier: str) -> int:
    "paper/main.pdf with the numbers, tables and figures of the tier; where there is no LaTeX, a line that says so."
    from alignmerge_nb import report

    paper = root / "paper"
    write_numbers(root, tier)
    if hits := report.check_prose((paper / "main.tex").read_text()):
        raise BadInput("numbers typed into the results of main.tex:\n  " + "\n  ".join(hits) + "\n", "macros of numbers.tex", "Add them to a notebook's numbers.")
    missing = "paper: no {}: numbers.tex is written, main.pdf is not made; `make system` as root installs it."
    if not shutil.which("latexmk"):
        print(missing.format("latexmk"))
        return 0
    dated = subprocess.run(["git", "-C", str(root), "log", "-1", "--format=%ct"], capture_output=True, text=True).stdout.strip()
    surroundings = {**os.environ, "SOURCE_DATE_EPOCH": dated or "0", "FORCE_SOURCE_DATE": "1", "max_print_line": "1000"}
    words = ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", "-outdir=build", "main.tex"]
    done = subprocess.run(words, cwd=paper, env=surroundings, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    log = (paper / "build" / "main.log").read_text(errors="replace") if (paper / "build" / "main.log").exists() else ""
    if done.returncode:
        if package := re.search(r"File [`'](\S+\.(?:sty|cls))' not found", log):
            print(missing.format(f"LaTeX package {package[1]}"))
            return 0
        print("\n".join(["paper: LaTeX failed; paper/build/main.log has the rest.", *(latex_errors(log) or done.stdout.splitlines()[-10:])]), file=sys.stderr)
        return 1
    for line in dict.fromkeys(re.findall(r"Warning: ((?:Reference|Citation) .*? undefined)", log)): print(f"paper: {line}")
    with atomic_path(paper / "main.pdf") as part: shutil.copyfile(paper / "build" / "main.pdf", part)
    print(f"paper/main.pdf ({tier})")
    return 0


# Comparison with the committed rows


def committed(root: Path, tier: str) -> dict[str, str]:
    "The result files of the last commit, by name; none outside a checkout."
    def git(*words: str) -> str: return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True).stdout

    folder = f"paper/results/{tier}/"
    return {name: git("show", f"HEAD:{name}") for name in git("ls-tree", "--name-only", "HEAD", folder).splitlines() if name.endswith(".jsonl")}


def rows_of(text: str) -> dict[str, dict]:
    "Rows by key."
    return {row["key"]: row for row in map(json.loads, text.splitlines())}


def differences(old: dict, new: dict) -> Iterator[tuple[str, float, float, float | str]]:
    "(metric, old, new, what is allowed) where two rows differ in a metric that is not ignored."
    nothing = float("nan")
    for name in sorted({*old["metrics"], *new["metrics"]}):
        rule = next(rule for pattern, rule in TOLERANCES.items() if re.fullmatch(pattern, name))
        a, b = old["metrics"].get(name, nothing), new["metrics"].get(name, nothing)
        if rule != "ignored" and a != b: yield name, a, b, rule if rule == "choice" else max(rule[0], rule[1] * abs(a))


def compare(root: Path, tier: str) -> int:
    "Say in words how far the rows of the working tree are from the committed ones; 1 where one is missing or outside tolerance."
    before, after = {}, {}
    for name, text in committed(root, tier).items():
        before |= rows_of(text)
        after |= rows_of((root / name).read_text()) if (root / name).exists() else {}
    if not before:
        print(f"no committed rows of tier {tier} to compare with")
        return 0
    shared = [key for key in before if key in after]
    equal, choices, moved, outside, largest = 0, 0, 0, [], (0.0, "none")
    for key in shared:
        found = list(differences(before[key], after[key]))
        judged = [each for each in found if each[3] != "choice"]
        choices += len(judged) < len(found)
        equal += not found
        label = " ".join(str(before[key]["config"].get(part)) for part in ("experiment", "dataset", "aligner", "head", "n_pairs", "seed"))
        said = [(abs(b - a), abs(b - a) <= allowed, f"{name} of {label}: {a:g} → {b:g} (allowed {allowed:g})") for name, a, b, allowed in judged]
        outside += [text for _, inside, text in said if not inside]
        moved += bool(found) and all(inside for _, inside, _ in said)
        largest = max([largest, *((size, text) for size, _, text in said)])
    print(f"{len(before)} committed rows of tier {tier}; {len(shared)} of them here: {equal} equal to the last digit, {moved} within tolerance, {len(shared) - equal - moved} outside; {choices} chose other settings")
    print(f"largest difference: {largest[1]}")
    for text in outside: print(f"outside: {text}")
    missing, added = len(before) - len(shared), len({*after} - {*before})
    if missing: print(f"missing: {missing} rows. Run `make run TIER={tier}`; if the parameters changed, commit the new rows.")
    if added: print(f"new: {added} rows that are not committed")
    return bool(outside or missing)


def main(words: list[str] | None = None, root: Path = ROOT) -> int:
    "Exit status of one subcommand."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    jobs = {"run": (run, "execute the experiments"), "tables": (tables, "render tables, figures and numbers from rows"), "pdf": (pdf, "set main.pdf"), "compare": (compare, "compare with the committed rows")}
    for name, (_, text) in jobs.items():
        command = commands.add_parser(name, help=text, description=text, epilog=f"example: python tools/paper.py {name} --tier full")
        command.add_argument("--tier", default="cpu", help="; ".join(f"{tier}: {what}" for tier, what in TIERS.items()))
        if name == "tables": command.add_argument("--check", action="store_true", help="change nothing; exit 1 where the tables are not what the rows give")
    given = parser.parse_args(words)
    try:
        look_up(TIERS, given.tier, "tier")
        job = check_tables if getattr(given, "check", False) else jobs[given.command][0]
        return int(job(root, given.tier) or 0)
    except (BadInput, CellError) as error:
        print(f"paper: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__": sys.exit(main())
