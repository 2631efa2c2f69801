"""The paper's tool on small repositories: what runs again, what fails, what checks find."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from publication import rendering
from publication.comparison import NEAR_TIE, judge
from publication.document import write_numbers
from publication.notebooks import CellError, scrub
from publication.running import warn_dirty
from publication.sampling import by_cost, first_of_each_set, sample_plan

import paper
from alignmerge_nb.lab import runs
from alignmerge_nb.lab.experiments.phase import phase_run
from alignmerge_nb.paper import rows as published_rows
from alignmerge_nb.paper.rows import RunConfig

PARAMETERS = "tier = 'smoke'\nrender_only = False\nsize = 1  # of the row\n"
BODY = """import json, os, sys
from pathlib import Path
rows = Path("paper/results") / tier / "10_tiny.jsonl"
if not render_only:
    rows.parent.mkdir(parents=True, exist_ok=True)
    rows.write_text(json.dumps({"key": "a", "size": size}) + "\\n")
if size > 5: raise ValueError("size is too large")
table = Path("paper/tables") / tier
table.mkdir(parents=True, exist_ok=True)
(table / "tiny.tex").write_text(f"{json.loads(rows.read_text())['size']} rows\\n")
print("in", os.getcwd() + "/paper", object(), os.environ.get("ALIGNMERGE_QUIET"))
print("a warning", file=sys.stderr)"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    "A repository with one experiment."
    cells = [
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(BODY),
    ]
    for folder in ("nbs/experiments", "paper/params/cpu"):
        (tmp_path / folder).mkdir(parents=True)
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel),
        tmp_path / "nbs/experiments/10_tiny.ipynb",
    )
    parameters(tmp_path, "size: 2")
    return tmp_path


def parameters(root: Path, text: str) -> None:
    (root / "paper/params/cpu/10_tiny.yaml").write_text(text + "\n")


def test_run_once_again_only_when_changed_and_check_tables(root: Path, capsys, monkeypatch) -> None:
    assert paper.main(["run"], root) == 0
    executed = root / "paper/executed/cpu/10_tiny.ipynb"
    text = executed.read_text()
    assert str(root) not in text and "start_time" not in text
    assert [
        [output.text for output in cell.get("outputs", [])]
        for cell in nbformat.read(executed, 4).cells
    ][-1] == ["in paper <object object at 0x…> 1\n"]
    assert paper.main(["run"], root) == 0 and "unchanged" in capsys.readouterr().out
    assert executed.read_text() == text
    shutil.rmtree(
        root / "paper/runs"
    )  # as in a fresh clone: rows are computed, and the result is the same to the byte
    assert (
        paper.main(["run"], root) == 0
        and "unchanged" not in capsys.readouterr().out
        and executed.read_text() == text
    )

    table = root / "paper/tables/cpu/tiny.tex"
    assert table.read_text() == "2 rows\n"
    table.write_text("3 rows\n")
    assert paper.main(["tables", "--check"], root) == 1
    said = capsys.readouterr().out
    assert "-3 rows" in said and "+2 rows" in said and "tiny.tex" in said
    assert table.read_text() == "3 rows\n" and executed.read_text() == text
    assert paper.main(["tables"], root) == 0 and table.read_text() == "2 rows\n"

    monkeypatch.setattr(
        runs, "data_hash", lambda: "fetched anew"
    )  # other data: computed again, by a tool that else sees no change
    assert paper.main(["run"], root) == 0 and "unchanged" not in capsys.readouterr().out

    parameters(root, "size: 4")
    assert paper.main(["run"], root) == 0
    assert (
        "unchanged" not in capsys.readouterr().out
        and table.read_text() == "4 rows\n"
        and executed.read_text() != text
    )


@pytest.mark.parametrize(
    "dirty, parameters, said",
    [
        (True, {"allow": []}, True),
        (True, {"allow": ["dirty"]}, False),
        (True, {}, False),
        (False, {"allow": []}, False),
    ],
)
def test_uncommitted_changes_are_said_before_computing(
    capsys, monkeypatch, dirty: bool, parameters: dict, said: bool
) -> None:
    monkeypatch.setattr(runs, "environment", lambda: {"dirty": dirty})
    warn_dirty([parameters])
    assert ("uncommitted changes" in capsys.readouterr().out) == said


def test_tables_are_restored_when_rendering_fails(root: Path, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise CellError("no")

    (root / "paper/tables/cpu").mkdir(parents=True)
    (root / "paper/tables/cpu/tiny.tex").write_text("kept")
    monkeypatch.setattr(rendering, "tables", broken)
    assert paper.main(["tables", "--check"], root) == 1
    assert (root / "paper/tables/cpu/tiny.tex").read_text() == "kept"


def test_failing_cell(root: Path, capsys) -> None:
    parameters(root, "size: 9")
    assert paper.main(["run"], root) == 1
    said = capsys.readouterr().err
    assert (
        "ValueError: size is too large" in said
        and "10_tiny.ipynb" in said
        and len(said.splitlines()) < 8
    )
    assert (
        not (root / "paper/executed/cpu/10_tiny.ipynb").exists()
        and (root / "paper/results/cpu/10_tiny.jsonl").exists()
    )


@pytest.mark.parametrize(
    "words, text, said",
    [
        (["run"], "sise: 2", ["'sise'", "Did you mean 'size'?", "10_tiny.ipynb", "render_only"]),
        (["run"], "size: [2", ["no YAML", "10_tiny.yaml"]),
        (["run"], "- 2", ["a list"]),
        (["run"], "tier: full", ["tier: full", "tier: cpu"]),
        (["run", "--tier", "ful"], "", ["'ful'", "Did you mean 'full'?"]),
        (["run", "--tier", "full"], "", ["no parameters of tier full"]),
    ],
)
def test_bad_input_is_named(
    root: Path, capsys, words: list[str], text: str, said: list[str]
) -> None:
    parameters(root, text)
    assert paper.main(words, root) == 1
    message = capsys.readouterr().err
    assert (
        all(part in message for part in said)
        and len(message.splitlines()) == 1
        and not (root / "paper/executed").exists()
    )


def test_parameters_without_a_notebook(root: Path, capsys) -> None:
    (root / "paper/params/cpu/10_tinny.yaml").write_text("size: 1\n")
    assert paper.main(["run"], root) == 1 and "Did you mean '10_tiny'?" in capsys.readouterr().err


def test_scrub_spares_pictures(tmp_path: Path) -> None:
    where = str(tmp_path) + "/"
    outputs = [
        nbformat.v4.new_output(
            "display_data",
            data={"image/png": where, "text/plain": f"{where}x", "image/svg+xml": where},
        ),
        nbformat.v4.new_output(
            "display_data",
            data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"},
        ),
        nbformat.v4.new_output("stream", name="stdout", text="a"),
        nbformat.v4.new_output("stream", name="stdout", text="b"),
    ]
    cell = nbformat.v4.new_code_cell(
        "1", outputs=outputs, metadata={"papermill": {"duration": 1}, "tags": ["kept"]}
    )
    done = scrub(nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {}}), tmp_path)
    nbformat.validate(done)
    assert done.cells[0].outputs[0].data == {
        "image/png": where,
        "text/plain": "x",
        "image/svg+xml": "",
    }
    assert len(done.cells[0].outputs) == 2 and done.cells[0].outputs[1].text == "ab"
    assert done.cells[0].metadata == {"tags": ["kept"]} and set(done.metadata) == {"kernelspec"}


# The PDF


def sources(root: Path, body: str = "") -> None:
    "A paper with the numbers of two experiments."
    (root / "paper/tables/cpu").mkdir(parents=True, exist_ok=True)
    (root / "paper/tables/cpu/b.numbers.tex").write_text("\\newcommand{\\best}{41.2}% b\n")
    (root / "paper/tables/cpu/a.numbers.tex").write_text("\\newcommand{\\worst}{1.2}% a\n")
    start = (
        "\\documentclass{article}\n\\input{numbers.tex}\n\\begin{document}\n"
        "% results begin\n\\best{} in \\tier.\n% results end\n"
    )
    (root / "paper/main.tex").write_text(f"{start}{body}\n\\end{{document}}\n")


def test_numbers_and_no_latex(root: Path, capsys, monkeypatch) -> None:
    sources(root)
    monkeypatch.setenv("PATH", str(root))
    assert paper.main(["pdf"], root) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1 and "no latexmk" in said and "make system" in said
    assert (
        (root / "paper/numbers.tex").read_text() == "\\newcommand{\\tier}{cpu}\n"
        "\\newcommand{\\tierA}{cpu}\n\\newcommand{\\worst}{1.2}% a\n"
        "\\newcommand{\\tierB}{cpu}\n\\newcommand{\\best}{41.2}% b\n"
    )
    (root / "paper/tables/cpu/c.numbers.tex").write_text("\\newcommand{\\best}{3}% c\n")
    assert paper.main(["pdf"], root) == 1
    said = capsys.readouterr().err
    assert "\\best in c.numbers.tex and in b.numbers.tex" in said


def test_numbers_of_the_default_tier_stand_in(root: Path) -> None:
    sources(root)
    (root / "paper/tables/full").mkdir(parents=True)
    (root / "paper/tables/full/b.numbers.tex").write_text("\\newcommand{\\best}{43.0}% b\n")
    write_numbers(root, "full")
    assert (
        (root / "paper/numbers.tex").read_text() == "\\newcommand{\\tier}{full}\n"
        "\\newcommand{\\tierA}{cpu}\n\\newcommand{\\worst}{1.2}% a\n"
        "\\newcommand{\\tierB}{full}\n\\newcommand{\\best}{43.0}% b\n"
    )


def test_typed_numbers_are_refused(root: Path, capsys) -> None:
    sources(root)
    path = root / "paper/main.tex"
    path.write_text(path.read_text().replace("\\best{} in", "41.2 in"))
    assert paper.main(["pdf"], root) == 1 and "line 5: 41.2 in" in capsys.readouterr().err


@pytest.mark.skipif(
    not shutil.which("latexmk"), reason="no latexmk on this machine: the PDF is not made"
)
def test_pdf(root: Path, capsys) -> None:
    sources(root)
    assert paper.main(["pdf"], root) == 0, capsys.readouterr().err
    first = (root / "paper/main.pdf").read_bytes()
    shutil.rmtree(root / "paper/build")
    assert paper.main(["pdf"], root) == 0 and (root / "paper/main.pdf").read_bytes() == first
    sources(root, "\\nosuchmacro")
    capsys.readouterr()
    assert paper.main(["pdf"], root) == 1
    said = capsys.readouterr().err
    assert (
        "Undefined control sequence" in said
        and "\\nosuchmacro" in said
        and len(said.splitlines()) < 10
    )


# Comparison


def row(key: str, **metrics: float) -> dict:
    provenance = {"task": "retrieval_run", "closure": "today", "seconds": 1.0}
    return {
        "key": key,
        "config": {"experiment": "tiny", "seed": 0},
        "metrics": metrics,
        "provenance": provenance,
    }


def write(root: Path, *rows: dict) -> None:
    path = root / "paper/results/cpu/10_tiny.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))


METRICS = {
    "r10": 40.0,
    "control_r10": 1.0,
    "pairs": 64,
    "i2t_median_rank": 30.0,
    "chosen_penalty": 1.0,
    "choice_lead": 0.1,
    "marginal_error": 1e-9,
    "macs_training": 1e12,
}


@pytest.fixture
def repository(root: Path, monkeypatch) -> Path:
    "The repository with two committed rows, made by today's code."
    monkeypatch.setattr(
        published_rows, "is_stale", lambda row: row["provenance"]["closure"] != "today"
    )
    write(root, row("a", **METRICS), row("b", accuracy=0.5))
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Rows"],
    ):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


@pytest.mark.parametrize(
    "first, second, status, said",
    [
        ({}, {}, 0, ["2 rows compared: 2 equal, 0 within", "largest allowed difference: none"]),
        (
            {"r10": 41.5, "i2t_median_rank": 32.0, "marginal_error": 1.0},
            {},
            0,
            ["1 equal, 1 within", "largest allowed difference: r10 of tiny"],
        ),
        ({"chosen_penalty": 2.0}, {}, 0, ["1 equal, 1 within"]),
        ({"marginal_error": 1.0, "macs_training": 2e12}, {}, 0, ["2 equal"]),
        (
            {"control_r10": 3.5},
            {},
            1,
            ["outside: control_r10 of tiny", "1 → 3.5 (allowed 2)", "1 outside"],
        ),
        ({"pairs": 65}, {}, 1, ["outside: pairs"]),
        ({"i2t_median_rank": 34.0}, {}, 1, ["outside: i2t_median_rank"]),
        (
            {"chosen_penalty": 2.0, "r10": 45.0},
            {},
            1,
            ["outside: r10 of tiny"],
        ),  # the published choice was no near tie
        ({"r10": float("nan")}, {}, 1, ["outside: r10"]),
        ({}, {"accuracy": 0.53}, 1, ["outside: accuracy"]),
        ({"r1": 3.0}, {}, 1, ["outside: r1", "nan"]),
    ],
)
def test_compare(
    repository: Path, capsys, first: dict, second: dict, status: int, said: list[str]
) -> None:
    write(repository, row("a", **{**METRICS, **first}), row("b", **{"accuracy": 0.5, **second}))
    assert paper.main(["compare"], repository) == status
    text = capsys.readouterr().out
    assert all(part in text for part in said), text


def test_what_is_not_wrong() -> None:
    "A near tie that fell the other way, and a row of earlier code, are printed but do not fail."
    old, new = row("a", **METRICS), row("a", **{**METRICS, "chosen_penalty": 2.0, "r10": 45.0})
    old["provenance"]["closure"] = published_rows.closure_hash("retrieval_run", frozenset())
    old["config"] |= dict.fromkeys(
        ("dataset", "aligner", "image_encoder", "text_encoder", "head", "options"), None
    )
    assert judge(old, new).state == "outside"
    tie = {**old, "metrics": {**old["metrics"], "choice_lead": NEAR_TIE / 2}}
    assert judge(tie, new).state == "tie"
    assert (
        judge(tie, {**new, "metrics": {**new["metrics"], "chosen_penalty": 1.0}}).state == "outside"
    )  # the same choice, another recall
    stale = {**old, "provenance": {**old["provenance"], "closure": "yesterday"}}
    assert judge(stale, new).state == "stale" and judge(stale, stale).state == "equal"


def test_compare_missing_and_new_rows(repository: Path, capsys) -> None:
    write(repository, row("b", accuracy=0.5), row("c", accuracy=0.5))
    assert paper.main(["compare"], repository) == 1
    text = capsys.readouterr().out
    assert "missing: 1 rows" in text and "new: 1 rows" in text
    (repository / "paper/results/cpu/10_tiny.jsonl").unlink()
    assert paper.main(["compare"], repository) == 1 and "missing: 2 rows" in capsys.readouterr().out
    assert (
        paper.main(["compare", "--tier", "full"], repository) == 0
        and "no committed rows of tier full" in capsys.readouterr().out
    )


def published(
    experiment: str, aligner: str, seed: int, seconds: float, task: str | None = "retrieval_run"
) -> dict:
    config = {
        "experiment": experiment,
        "aligner": aligner,
        "head": None,
        "seed": seed,
        "options": {},
        "dataset": "emoji",
        "image_encoder": "i",
        "text_encoder": "t",
    }
    return {
        "key": f"{experiment} {aligner} {seed}",
        "config": config,
        "metrics": {},
        "provenance": {"task": task, "seconds": seconds},
    }


def test_a_sample_keeps_to_its_time_and_takes_every_experiment_and_method_in_turn() -> None:
    rows = [
        published(experiment, aligner, seed, seconds)
        for experiment, seconds in (("10", 1.0), ("20", 10.0))
        for aligner in ("a", "b")
        for seed in range(5)
    ]
    rows += [published("30", "slow", 0, 500.0), published("40", "old", 0, 1.0, task=None)]
    chosen = sample_plan(rows, 46.0, 100.0)
    seconds = {
        name: sum(
            row["provenance"]["seconds"] for row in chosen if row["config"]["experiment"] == name
        )
        for name in ("10", "20", "30", "40")
    }
    assert seconds == {
        "10": 10.0,
        "20": 30.0,
        "30": 0.0,
        "40": 0.0,
    }  # all of the cheap one, what fits of the other, nothing that cannot be
    assert [row["key"] for row in chosen if row["config"]["experiment"] == "20"] == [
        "20 a 0",
        "20 b 0",
        "20 a 1",
    ]
    assert len(first_of_each_set(chosen)) == 1
    assert by_cost(chosen)[0]["provenance"]["seconds"] == 10.0


@pytest.mark.parametrize(
    "words, said",
    [
        (["--minutes", "0"], "a positive number"),
        (["--minutes", "-1"], "a positive number"),
        (["--minutes", "nan"], "a positive number"),
        (["--threads", "0"], "0 threads"),
        (["--tier", "full"], "no published rows of tier full"),
    ],
)
def test_a_sample_of_nothing_is_refused(
    repository: Path, capsys, words: list[str], said: str
) -> None:
    assert paper.main(["sample", *words], repository) == 1
    assert said in capsys.readouterr().err


def test_a_row_edited_by_hand_is_found(root: Path, capsys, monkeypatch) -> None:
    "Two real rows of a planted world are computed again: as they are, and with one number changed."
    config = RunConfig(
        "35_tiny",
        "cpu",
        "planted",
        "ridge",
        n_pairs=16,
        params={"penalty": 1.0},
        options={"overlap": 0.5, "test": 50},
    )
    rows = runs.run_grid([config, replace(config, seed=1)], phase_run, root / "made")
    path = root / "paper/results/cpu/35_tiny.jsonl"
    published_rows.write_rows(rows, path)
    assert paper.main(["sample", "--workers", "1"], root) == 0
    said = capsys.readouterr().out
    assert (
        "2 equal" in said
        and said.splitlines()[-1].startswith("recomputed 2 of 2 published rows")
        and "all agree" in said
    )
    rows[1]["metrics"]["r10"] += 3
    published_rows.write_rows(rows, path)
    assert paper.main(["sample", "--workers", "1"], root) == 1
    said = capsys.readouterr().out
    assert "outside: r10 of 35_tiny planted ridge" in said and "NOT ALL AGREE" in said


def test_a_check_that_is_ended_leaves_the_tables(root: Path) -> None:
    "SIGTERM in the middle of `tables --check`: every file as before, no kernel left."
    notebook = root / "nbs/experiments/10_tiny.ipynb"
    content = nbformat.read(notebook, 4)
    content.cells[1].source = (
        "import time, pathlib, os\n"
        "pathlib.Path(os.environ['MARK']).write_text(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    nbformat.write(content, notebook)
    write(root, row("a", r10=1.0))
    table = root / "paper/tables/cpu/tiny.tex"
    table.parent.mkdir(parents=True)
    table.write_text("kept")
    mark = root / "started"
    script = (
        f"import sys; sys.path.insert(0, {str(Path(paper.__file__).parent)!r}); "
        "import pathlib, paper; "
        f"paper.run_as_program(['tables', '--check'], pathlib.Path({str(root)!r}))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "MARK": str(mark)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    kernel = int(mark.read_text())
    child.terminate()
    assert child.wait(30) == 143
    assert table.read_text() == "kept" and [path.name for path in table.parent.iterdir()] == [
        "tiny.tex"
    ]
    deadline = time.monotonic() + 10
    while Path(f"/proc/{kernel}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{kernel}").exists()
