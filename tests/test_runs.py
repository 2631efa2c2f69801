"Runs, from a configuration to a line on disk: what is computed again and what never twice, and what a killed grid leaves behind."

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

from alignmerge_nb.core import InputError
from alignmerge_nb.lab import runs
from alignmerge_nb.lab.runs import ExperimentPaths, Outcome, data_hash, run, run_grid
from alignmerge_nb.paper import rows as published
from alignmerge_nb.paper.rows import RunConfig, pack, read_rows, source_hash, unpack, write_rows

CONFIG = RunConfig("10_retrieval", "cpu", "emoji", "ridge", n_pairs=64, params={"penalty": 1.0})
OTHER = {
    "seed": 1,
    "n_pairs": None,
    "unpaired": "disjoint",
    "split": "group",
    "params": {"penalty": 2.0},
    "options": {"input": "raw"},
}


def compute(config: RunConfig) -> Outcome:
    "Leaves a mark, so that tests can count how often it was called."
    if marks := os.environ.get("MARKS"):
        Path(marks, f"{config.seed}-{time.time_ns()}").touch()
    return Outcome(
        {"r10": 10.0 + config.seed},
        {"i2t": torch.tensor([1, 12, 300])},
        {"x": {"key": "k", "weights": "w"}},
    )


def slow(config: RunConfig) -> Outcome:
    if config.seed:
        time.sleep(60)
    return compute(config)


def dies(config: RunConfig) -> Outcome:
    if config.seed:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(config)


def fails(config: RunConfig) -> Outcome:
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
    return [replace(CONFIG, seed=seed) for seed in range(n)]


@pytest.mark.parametrize("name", [each.name for each in fields(RunConfig)])
def test_every_field_changes_the_key(name: str) -> None:
    assert replace(CONFIG, **{name: OTHER.get(name, "other")}).key != CONFIG.key


def test_key_survives_json_and_the_order_of_settings() -> None:
    assert RunConfig.from_dict(json.loads(json.dumps(asdict(CONFIG)))).key == CONFIG.key
    assert (
        replace(CONFIG, params={"a": 1, "b": 2}).key == replace(CONFIG, params={"b": 2, "a": 1}).key
    )
    assert len({CONFIG, replace(CONFIG), replace(CONFIG, seed=3)}) == 2  # hashable


@pytest.mark.parametrize(
    "values, said",
    [
        ({"alinger": "ridge"}, "Did you mean 'aligner'?"),
        ({"n_pair": 3}, "Did you mean 'n_pairs'?"),
        ({"unpaired": "disjont"}, "Did you mean 'disjoint'?"),
        ({"split": "txt"}, "Did you mean 'text'?"),
        ({"n_pairs": -1}, "None or a count"),
    ],
)
def test_wrong_configurations(values: dict, said: str) -> None:
    with pytest.raises(InputError) as caught:
        RunConfig.from_dict({**asdict(CONFIG), **values})
    assert said in str(caught.value)


def test_a_row_says_where_it_comes_from(tmp_path: Path) -> None:
    row = run(CONFIG, compute, tmp_path)
    assert (
        set(row) == {"key", "config", "metrics", "vectors", "provenance"}
        and row["config"]["seed"] == 0
    )
    born = row["provenance"]
    assert {
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
    } == set(born)
    assert (
        set(born["versions"])
        >= {"python", "torch", "numpy", "scipy", "POT", "timm", "transformers", "alignmerge-nb"}
        and born["features"]["x"]["weights"] == "w"
    )
    assert unpack(row["vectors"]["i2t"]).tolist() == [1, 12, 300]


@pytest.mark.parametrize("change", ["closure", "data", "versions", "key"])
def test_rows_of_other_code_data_or_versions_are_done_again(
    tmp_path: Path, marks: Path, change: str
) -> None:
    row = run(CONFIG, compute, tmp_path)
    assert run(CONFIG, compute, tmp_path) == row and len(list(marks.iterdir())) == 1
    (row if change == "key" else row["provenance"])[change] = "another"
    path = tmp_path / CONFIG.experiment / f"{CONFIG.key}.json"
    path.write_text(json.dumps(row))
    assert (
        run(CONFIG, compute, tmp_path)["provenance"]["closure"] == source_hash()
        and len(list(marks.iterdir())) == 2
    )


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
            "unpaired_weight: float = 0.3,  # of an unpaired row",
            "unpaired_weight: float = 0.2,  # of an unpaired row",
        ),  # a default
        ("aligners/linear", "correlation[0].clamp(min=1e-20)", "correlation[0].clamp(min=1e-10)"),
        ("transport/sinkhorn", "DRIFT =", "DRIFT = 2 *"),
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
    for dirty, times in (
        (True, 1),
        (True, 1),
        (False, 2),
        (True, 2),
    ):  # a dirty tree may use what a clean one made of the same source
        monkeypatch.setattr(runs, "environment", lambda dirty=dirty: {**state, "dirty": dirty})
        run(CONFIG, compute, tmp_path)
        assert len(list(marks.iterdir())) == times


@pytest.mark.parametrize(
    "rest",
    [b"", b"{", b"\x00" * 40, b"\xff\xfe\xfd", b"[]", b"null", b'{"key":"KEY","provenance":{}}'],
)
def test_what_is_left_of_a_row_is_done_again(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / CONFIG.experiment / f"{CONFIG.key}.json"
    path.parent.mkdir()
    path.write_bytes(rest.replace(b"KEY", CONFIG.key.encode()))
    assert (
        run(CONFIG, compute, tmp_path)["metrics"] == {"r10": 10.0}
        and json.loads(path.read_text())["key"] == CONFIG.key
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(InputError, match="not finite .r10."):
        run(CONFIG, lambda config: Outcome({"r10": value}), tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_data_hash_follows_what_was_fetched(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ALIGNMERGE_DATA", str(tmp_path))

    def fetched(name: str, version: str) -> list[str]:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "source.json").write_text(json.dumps({"version": version}))
        data_hash.cache_clear()
        return [data_hash(name) for name in ("emoji", "union", "tuxpaint", None)]

    try:
        first = fetched("emoji", "1")
        assert fetched("emoji", "1") == first
        changed = fetched("emoji", "2")
        assert [a == b for a, b in zip(first, changed)] == [
            False,
            False,
            True,
            False,
        ]  # another set is not touched
        assert not any(
            a == b for a, b in zip(changed, fetched("weights/minilm", "1"))
        )  # encoders concern all
    finally:
        data_hash.cache_clear()


def test_grid_is_resumed_in_order_and_computes_once(tmp_path: Path, marks: Path) -> None:
    run_grid(grid(2), compute, tmp_path)
    rows = run_grid(grid(4)[::-1], compute, tmp_path, workers=2)
    assert [row["config"]["seed"] for row in rows] == [3, 2, 1, 0] and sorted(
        path.name[0] for path in marks.iterdir()
    ) == list("0123")
    assert rows[0]["provenance"]["threads"] == 1
    with pytest.raises(InputError, match="equal configurations"):
        run_grid([CONFIG, CONFIG], compute, tmp_path)


@pytest.mark.parametrize(
    "job, said",
    [(dies, "worker process that died"), (fails, "Got nothing. Wanted something. Look.")],
)
def test_a_worker_in_trouble_ends_the_grid_and_finished_rows_stay(
    tmp_path: Path, job, said: str
) -> None:
    run(CONFIG, compute, tmp_path)
    with pytest.raises(InputError, match=said):
        run_grid(grid(3), job, tmp_path, workers=2)
    assert [path.stem for path in tmp_path.rglob("*.json")] == [CONFIG.key] and not list(
        tmp_path.rglob("*.part")
    )


def test_killed_in_the_middle(tmp_path: Path, marks: Path) -> None:
    code = "import sys; from pathlib import Path; import test_runs as t; t.run_grid(t.grid(2), t.slow, Path(sys.argv[1]))"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(runs.__file__).parents[2])])
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}
    )
    first = tmp_path / CONFIG.experiment / f"{grid(2)[0].key}.json"
    deadline = time.monotonic() + 60
    while not first.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.kill(), child.wait()
    assert first.exists() and len(list(marks.iterdir())) == 1
    assert len(run_grid(grid(2), compute, tmp_path)) == 2 and sorted(
        path.name[0] for path in marks.iterdir()
    ) == ["0", "1"]


def test_rows_on_disk_have_one_order_and_name_the_broken_line(tmp_path: Path) -> None:
    rows, path = run_grid(grid(3), compute, tmp_path), tmp_path / "rows.jsonl"
    write_rows(rows[::-1], path)
    text = path.read_text()
    write_rows(rows, path)
    assert path.read_text() == text and read_rows(path) == rows
    for old, new, said in (
        ('"seed":1', '"seed":9', "line 2 .* key"),
        ('"aligner":', '"alinger":', "aligner"),
        ('"metrics"', '"metricks"', "line 1 .* without metrics"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(InputError, match=said):
            read_rows(path)
    path.write_text(text[:-30])
    with pytest.raises(InputError, match="line 3 .* no JSON"):
        read_rows(path)
    with pytest.raises(InputError, match="make paper"):
        read_rows(tmp_path / "none.jsonl")


def test_desk_collects_and_renders_without_computing(
    tmp_path: Path, marks: Path, monkeypatch
) -> None:
    (tmp_path / "paper" / "params").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    desk = ExperimentPaths("10_retrieval", "cpu")
    made = desk.rows(grid(3), compute)
    desk.rows(grid(2), compute)  # a smaller grid publishes fewer rows, none of them doubled
    assert (
        len(read_rows(tmp_path / "paper/results/cpu/10_retrieval.jsonl")) == 2
        and len(list(marks.iterdir())) == 3
    )
    only = ExperimentPaths("10_retrieval", "cpu", render_only=True)
    assert only.rows(grid(2), fails) == made[:2] and desk.tables.is_dir()
    with pytest.raises(InputError, match="without 1 of 3 rows"):
        only.rows(grid(3), fails)


def test_a_thousand_ranks_are_small() -> None:
    ranks = (1000 ** torch.rand(1000, generator=torch.Generator().manual_seed(0))).long()
    assert torch.equal(unpack(pack(ranks)), ranks) and len(pack(ranks)) < 2500
    with pytest.raises(InputError, match="65536"):
        pack(torch.tensor([65536]))


def test_only_what_decides_a_number_makes_a_tree_dirty(tmp_path: Path, monkeypatch) -> None:
    library = tmp_path / "alignmerge_nb"
    git = lambda *words: subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    for name in (
        "alignmerge_nb/core.py",
        "paper/main.tex",
        "paper/params/cpu/a.yaml",
        "paper/results/cpu/a.jsonl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git("init", "-q"), git("add", "-A"), git("commit", "-qm", "All")
    monkeypatch.setattr(runs, "LIBRARY", library)
    fresh = runs.environment.__wrapped__
    assert not fresh()["dirty"] and len(fresh()["commit"]) == 40
    for name, dirty in (
        ("paper/results/cpu/a.jsonl", False),
        ("paper/tables/cpu/new.tex", False),
        ("paper/main.tex", False),
        ("paper/params/cpu/a.yaml", True),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("2\n")
        assert fresh()["dirty"] == dirty, name


def test_a_killed_driver_takes_its_workers_with_it(tmp_path: Path, marks: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_runs import grid, slow
from alignmerge_nb.lab.runs import run_grid
run_grid(grid(4), slow, Path({str(tmp_path / "rows")!r}), workers=2)
"""
    path = tmp_path / "driver.py"
    path.write_text(
        "if __name__ == '__main__':\n"
        + "\n".join(f"    {line}" for line in script.strip().splitlines())
    )
    child = subprocess.Popen([sys.executable, str(path)])
    deadline = time.monotonic() + 60
    while not list(marks.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)  # a worker has finished a row
    workers = [
        int(name)
        for name in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    ]
    child.kill(), child.wait()
    deadline = time.monotonic() + 10
    alive = lambda: [
        pid
        for pid in workers
        if Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text()
    ]
    while alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) >= 2 and not alive()
