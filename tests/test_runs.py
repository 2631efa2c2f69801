"Runs: what is computed again, what never twice, and what a killed grid leaves behind."

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pytest
import torch

from alignmerge_nb.core import InputError
from alignmerge_nb.lab import runs
from alignmerge_nb.lab.runs import (
    ExperimentPaths,
    Outcome,
    data_hash,
    parse_options,
    row_path,
    run,
    run_grid,
)
from alignmerge_nb.paper import rows as published
from alignmerge_nb.paper.rows import RunConfig, pack, read_rows, source_hash, unpack, write_rows

CONFIG = RunConfig("10_retrieval", "cpu", "emoji", "ridge", n_pairs=64, params={"penalty": 1.0})
OTHER = {
    "tier": "full",
    "seed": 1,
    "n_pairs": None,
    "unpaired": "disjoint",
    "split": "group",
    "params": {"penalty": 2.0},
    "options": {"input": "raw"},
}


def compute(config: RunConfig) -> Outcome:
    "Leave a mark, so that tests can count the calls."
    marks = os.environ.get("MARKS")
    if marks:
        Path(marks, f"{config.seed}-{time.time_ns()}").touch()
    return Outcome(
        {"r10": 10.0 + config.seed},
        {"i2t": torch.tensor([1, 12, 300])},
        {"x": {"key": "k", "weights": "w"}},
    )


def slow(config: RunConfig) -> Outcome:
    "Take a minute for all seeds but 0."
    if config.seed:
        time.sleep(60)
    return compute(config)


def dies(config: RunConfig) -> Outcome:
    "Kill the process for all seeds but 0."
    if config.seed:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(config)


def fails(config: RunConfig) -> Outcome:
    "Raise for all seeds but 0."
    if config.seed:
        raise InputError("nothing", "something", "Look.")
    return compute(config)


@pytest.fixture
def marks(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv("MARKS", str(folder))
    return folder


def grid(n: int) -> list[RunConfig]:
    "Configurations of n seeds."
    return [replace(CONFIG, seed=seed) for seed in range(n)]


@pytest.mark.parametrize("name", [field.name for field in fields(RunConfig)])
def test_every_field_changes_the_key(name: str) -> None:
    assert replace(CONFIG, **{name: OTHER.get(name, "other")}).key != CONFIG.key


def test_key_survives_json_and_the_order_of_settings() -> None:
    assert RunConfig.from_dict(json.loads(json.dumps(asdict(CONFIG)))).key == CONFIG.key
    assert (
        replace(CONFIG, params={"a": 1, "b": 2}).key == replace(CONFIG, params={"b": 2, "a": 1}).key
    )
    assert len({CONFIG, replace(CONFIG), replace(CONFIG, seed=3)}) == 2  # hashable


@pytest.mark.parametrize(
    "values, message",
    [
        ({"alinger": "ridge"}, "Did you mean 'aligner'?"),
        ({"n_pair": 3}, "Did you mean 'n_pairs'?"),
        ({"unpaired": "disjont"}, "Did you mean 'disjoint'?"),
        ({"split": "txt"}, "Did you mean 'text'?"),
        ({"n_pairs": -1}, "None or a count"),
    ],
)
def test_wrong_configurations(values: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        RunConfig.from_dict({**asdict(CONFIG), **values})
    assert message in str(caught.value)


@dataclass(frozen=True)
class ToyOptions:
    "Options of a run in these tests."

    input: str = "aligned"
    epochs: int = 20


def test_options_have_defaults_and_unknown_ones_are_named() -> None:
    assert parse_options(CONFIG, ToyOptions, "option") == ToyOptions()
    some = replace(CONFIG, options={"epochs": 3})
    assert parse_options(some, ToyOptions, "option") == ToyOptions(epochs=3)
    misspelt = replace(CONFIG, options={"epoch": 3})
    with pytest.raises(InputError, match="the option 'epoch'.*Did you mean 'epochs'"):
        parse_options(misspelt, ToyOptions, "option")


def test_a_row_says_where_it_comes_from(tmp_path: Path) -> None:
    row = run(CONFIG, compute, tmp_path)
    assert set(row) == {"key", "config", "metrics", "vectors", "provenance"}
    assert row["config"]["seed"] == 0
    provenance = row["provenance"]
    assert set(provenance) == {
        "commit",
        "dirty",
        "source",
        "task",
        "closure",
        "data",
        "versions",
        "device",
        "threads",
        "features",
        "seconds",
        "utc",
    }
    packages = {"torch", "numpy", "scipy", "POT", "timm", "transformers", "alignmerge-nb"}
    assert set(provenance["versions"]) >= {"python", *packages}
    assert provenance["features"]["x"]["weights"] == "w"
    assert unpack(row["vectors"]["i2t"]).tolist() == [1, 12, 300]


@pytest.mark.parametrize("change", ["closure", "data", "versions", "key"])
def test_rows_of_other_code_data_or_versions_are_done_again(
    tmp_path: Path, marks: Path, change: str
) -> None:
    row = run(CONFIG, compute, tmp_path)
    assert run(CONFIG, compute, tmp_path) == row
    assert len(list(marks.iterdir())) == 1
    part = row if change == "key" else row["provenance"]
    part[change] = "another"
    row_path(tmp_path, CONFIG).write_text(json.dumps(row))
    assert run(CONFIG, compute, tmp_path)["provenance"]["closure"] == source_hash()
    assert len(list(marks.iterdir())) == 2


# What a row depends on

WORDS = frozenset({"tuxpaint", "align_merge", "efficientnet-lite0", "minilm"})


@pytest.fixture
def library(tmp_path: Path) -> Path:
    "A copy of the library's source."
    return shutil.copytree(
        published.LIBRARY, tmp_path / "library", ignore=shutil.ignore_patterns("__pycache__")
    )


def hash_after(library: Path, module: str, old: str, new: str) -> str:
    "The closure hash of a retrieval run after a change of one module."
    path = library / f"{module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    for cache in (published.module_texts, published.definitions, published.closure_hash):
        cache.cache_clear()
    return published.closure_hash("retrieval_run", WORDS, library)


@pytest.mark.parametrize(
    "module, old, new",
    [
        (
            "aligners/align_merge",
            "unpaired_weight: float = setting(0.3, above=0)  # of an unpaired row",
            "unpaired_weight: float = setting(0.2, above=0)  # of an unpaired row",
        ),  # a default
        ("aligners/linear", "correlation[0].clamp(min=1e-20)", "correlation[0].clamp(min=1e-10)"),
        ("transport/kernel", "_DRIFT =", "_DRIFT = 2 *"),
        ("aligners/selection", "if len(pairs) <= 256", "if len(pairs) <= 255"),
        ("lab/protocols", "half = len(rest) // 2", "half = len(rest) // 3"),
        ("lab/tasks", "class RetrievalData", "@final\nclass RetrievalData"),
        ("metrics/retrieval", "CUTOFFS = (1,", "CUTOFFS = (2,"),
        ("encoders/specs", "tf_efficientnet_lite0", "tf_efficientnet_lite1"),
    ],
)
def test_everything_on_the_way_changes_the_closure(
    library: Path, module: str, old: str, new: str
) -> None:
    assert hash_after(library, module, old, new) != published.closure_hash("retrieval_run", WORDS)


@pytest.mark.parametrize(
    "module, old, new",
    [
        ("merging/weights", "def ", "def other(): return 1\n\n\ndef "),
        (
            "aligners/registry",
            '"asif": ASIF,',
            '"asif": ASIF, "asif_again": ASIF,',
        ),  # another method
        ("aligners/align_merge", "# of an unpaired row beside a pair's 1", "# another comment"),
        (
            "lab/protocols",
            '"Select, fit, evaluate once',
            '"Choose, fit, evaluate once',
        ),  # a docstring
        ("data/datasets", "flat emoji at 64 px", "flat emoji"),  # another data set
    ],
)
def test_what_is_not_on_the_way_does_not(library: Path, module: str, old: str, new: str) -> None:
    assert hash_after(library, module, old, new) == published.closure_hash("retrieval_run", WORDS)


def test_a_definition_may_move(library: Path) -> None:
    "The same definitions elsewhere are the same closure."
    path = library / "aligners/align_merge.py"
    text = path.read_text()
    start = text.index("def complete_basis(")
    piece = text[start : text.index("\n\n\n", start)]
    path.write_text(text.replace(piece, "from .bases import complete_basis"))
    (library / "aligners/bases.py").write_text(
        f"import torch\nfrom torch import Tensor\n\n{piece}\n"
    )
    assert published.closure_hash("retrieval_run", WORDS, library) == published.closure_hash(
        "retrieval_run", WORDS
    )


def test_a_row_without_a_closure_or_with_another_is_stale() -> None:
    row = {
        "config": asdict(CONFIG),
        "provenance": {
            "task": "retrieval_run",
            "closure": published.depends_on("retrieval_run", asdict(CONFIG)),
        },
    }
    assert not published.is_stale(row)
    for change in (
        {"closure": "another"},
        {"closure": None},
        {"task": "no_such_run"},
        {"task": None},
    ):
        assert published.is_stale({**row, "provenance": {**row["provenance"], **change}})


def test_a_clean_tree_keeps_no_dirty_row(tmp_path: Path, marks: Path, monkeypatch) -> None:
    state = dict(runs.environment())
    # a dirty tree may use what a clean one made of the same source
    for dirty, calls in ((True, 1), (True, 1), (False, 2), (True, 2)):
        monkeypatch.setattr(runs, "environment", lambda dirty=dirty: {**state, "dirty": dirty})
        run(CONFIG, compute, tmp_path)
        assert len(list(marks.iterdir())) == calls


@pytest.mark.parametrize(
    "rest",
    [b"", b"{", b"\x00" * 40, b"\xff\xfe\xfd", b"[]", b"null", b'{"key":"KEY","provenance":{}}'],
)
def test_what_is_left_of_a_row_is_done_again(tmp_path: Path, rest: bytes) -> None:
    path = row_path(tmp_path, CONFIG)
    path.parent.mkdir()
    path.write_bytes(rest.replace(b"KEY", CONFIG.key.encode()))
    assert run(CONFIG, compute, tmp_path)["metrics"] == {"r10": 10.0}
    assert json.loads(path.read_text())["key"] == CONFIG.key


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(InputError, match="not finite .r10."):
        run(CONFIG, lambda config: Outcome({"r10": value}), tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_data_hash_follows_what_was_fetched(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ALIGNMERGE_DATA", str(tmp_path))

    def fetched(name: str, version: str) -> list[str]:
        "The hashes after a set was fetched."
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "source.json").write_text(json.dumps({"version": version}))
        data_hash.cache_clear()
        return [data_hash(name) for name in ("emoji", "union", "tuxpaint", None)]

    try:
        first = fetched("emoji", "1")
        assert fetched("emoji", "1") == first
        changed = fetched("emoji", "2")
        equal = [a == b for a, b in zip(first, changed, strict=True)]
        assert equal == [False, False, True, False]  # another set is not touched
        weights = fetched("weights/minilm", "1")
        assert not any(
            a == b for a, b in zip(changed, weights, strict=True)
        )  # encoders concern all
    finally:
        data_hash.cache_clear()


def test_grid_is_resumed_in_order_and_computes_once(tmp_path: Path, marks: Path) -> None:
    run_grid(grid(2), compute, tmp_path)
    rows = run_grid(grid(4)[::-1], compute, tmp_path, workers=2)
    assert [row["config"]["seed"] for row in rows] == [3, 2, 1, 0]
    assert sorted(path.name[0] for path in marks.iterdir()) == list("0123")
    assert rows[0]["provenance"]["threads"] == 1
    with pytest.raises(InputError, match="equal configurations"):
        run_grid([CONFIG, CONFIG], compute, tmp_path)


@pytest.mark.parametrize(
    "job, message",
    [(dies, "worker process that died"), (fails, "Got nothing. Wanted something. Look.")],
)
def test_a_worker_in_trouble_ends_the_grid_and_finished_rows_stay(
    tmp_path: Path, job: Callable[[RunConfig], Outcome], message: str
) -> None:
    run(CONFIG, compute, tmp_path)
    with pytest.raises(InputError, match=message):
        run_grid(grid(3), job, tmp_path, workers=2)
    assert [path.stem for path in tmp_path.rglob("*.json")] == [CONFIG.key]
    assert not list(tmp_path.rglob("*.part"))


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    "Return when the condition holds, or after some seconds."
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


SLOW_GRID = """
import sys
from pathlib import Path
from test_runs import grid, run_grid, slow
run_grid(grid(2), slow, Path(sys.argv[1]))
"""


def test_killed_in_the_middle(tmp_path: Path, marks: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(runs.__file__).parents[2])])
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW_GRID, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}
    )
    first = row_path(tmp_path, grid(2)[0])
    wait_until(lambda: first.exists() or child.poll() is not None, seconds=60)
    child.kill()
    child.wait()
    assert first.exists()
    assert len(list(marks.iterdir())) == 1
    assert len(run_grid(grid(2), compute, tmp_path)) == 2
    assert sorted(path.name[0] for path in marks.iterdir()) == ["0", "1"]


def test_rows_on_disk_have_one_order_and_name_the_broken_line(tmp_path: Path) -> None:
    rows, path = run_grid(grid(3), compute, tmp_path), tmp_path / "rows.jsonl"
    write_rows(rows[::-1], path)
    text = path.read_text()
    write_rows(rows, path)
    assert path.read_text() == text
    assert read_rows(path) == rows
    for old, new, message in (
        ('"seed":1', '"seed":9', "line 2 .* key"),
        ('"aligner":', '"alinger":', "aligner"),
        ('"metrics"', '"metricks"', "line 1 .* without metrics"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(InputError, match=message):
            read_rows(path)
    path.write_text(text[:-30])
    with pytest.raises(InputError, match="line 3 .* no JSON"):
        read_rows(path)
    with pytest.raises(InputError, match="make paper"):
        read_rows(tmp_path / "none.jsonl")


def test_paths_collect_and_render_without_computing(
    tmp_path: Path, marks: Path, monkeypatch
) -> None:
    (tmp_path / "paper" / "params").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    paths = ExperimentPaths("10_retrieval", "cpu")
    rows = paths.rows(grid(3), compute)
    paths.rows(grid(2), compute)  # a smaller grid publishes fewer rows, none of them doubled
    assert len(read_rows(tmp_path / "paper/results/cpu/10_retrieval.jsonl")) == 2
    assert len(list(marks.iterdir())) == 3
    render = ExperimentPaths("10_retrieval", "cpu", render_only=True)
    assert render.rows(grid(2), fails) == rows[:2]
    assert paths.tables.is_dir()
    with pytest.raises(InputError, match="without 1 of 3 rows"):
        render.rows(grid(3), fails)


def test_a_thousand_ranks_are_small() -> None:
    ranks = (1000 ** torch.rand(1000, generator=torch.Generator().manual_seed(0))).long()
    assert torch.equal(unpack(pack(ranks)), ranks)
    assert len(pack(ranks)) < 2500
    with pytest.raises(InputError, match="65536"):
        pack(torch.tensor([65536]))


def test_only_what_decides_a_number_makes_a_tree_dirty(tmp_path: Path, monkeypatch) -> None:
    library = tmp_path / "alignmerge_nb"

    def git(*words: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    for name in (
        "alignmerge_nb/core.py",
        "paper/main.tex",
        "paper/params/cpu/a.yaml",
        "paper/results/cpu/a.jsonl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "All")
    monkeypatch.setattr(runs, "LIBRARY", library)
    fresh = runs.environment.__wrapped__
    assert not fresh()["dirty"]
    assert len(fresh()["commit"]) == 40
    for name, dirty in (
        ("paper/results/cpu/a.jsonl", False),
        ("paper/tables/cpu/new.tex", False),
        ("paper/main.tex", False),
        ("paper/params/cpu/a.yaml", True),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("2\n")
        assert fresh()["dirty"] == dirty, name


SLOW_DRIVER = """
import sys

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from pathlib import Path

    from test_runs import grid, run_grid, slow

    run_grid(grid(4), slow, Path(sys.argv[2]), workers=2)
"""


def is_alive(pid: int) -> bool:
    "Whether a process runs."
    process = Path(f"/proc/{pid}")
    return process.exists() and "zombie" not in (process / "status").read_text()


def test_a_killed_driver_takes_its_workers_with_it(tmp_path: Path, marks: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(SLOW_DRIVER)
    folders = [str(Path(__file__).parent), str(tmp_path / "rows")]
    child = subprocess.Popen([sys.executable, str(script), *folders])
    wait_until(lambda: bool(list(marks.iterdir())), seconds=60)  # a worker has finished a row
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text()
    workers = [int(pid) for pid in children.split()]
    child.kill()
    child.wait()
    wait_until(lambda: not any(map(is_alive, workers)), seconds=10)
    assert len(workers) >= 2
    assert not any(map(is_alive, workers))
