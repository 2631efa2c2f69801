"""What was published stays published: rows of the history, and dates of the claims' tests."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import history
import pytest

from alignmerge_nb.paper.claims import read_claims, read_first_rows, registered

WHOLE = pytest.mark.skipif(
    not history.is_complete(history.ROOT), reason="a checkout without its whole history"
)


@WHOLE
def test_no_published_cell_is_lost() -> None:
    assert history.lost_cells(history.ROOT) == {}


@WHOLE
def test_the_dates_of_first_rows_are_those_of_the_history() -> None:
    found = history.first_rows(history.ROOT)
    assert read_first_rows(history.ROOT / "paper" / "first_rows.yaml") == found


def test_every_test_of_a_claim_is_dated_and_says_which_were_written_with_rows_in_sight() -> None:
    dates, claims = (
        read_first_rows(history.ROOT / "paper" / "first_rows.yaml"),
        read_claims(history.ROOT / "paper" / "claims.yaml"),
    )
    said = {claim.id: {registered(test, dates) for test in claim.tests} for claim in claims}
    assert {
        name for name, words in said.items() if any(each.startswith("after") for each in words)
    } == {"C5", "C7", "C8", "C11"}
    assert {name for name, words in said.items() if any("changed" in each for each in words)} == {
        "C1",
        "C3",
        "C4",
        "C6",
        "C9",
        "C10",
    }
    assert not any("undated" in words for words in said.values())


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "CHANGELOG.md",
        "paper/main.tex",
        "nbs/index.ipynb",
        "nbs/paper/04_claims.ipynb",
        "nbs/experiments/90_claims.ipynb",
    ],
)
def test_nowhere_is_it_said_that_all_thresholds_came_first(file: str) -> None:
    text = (history.ROOT / file).read_text()
    for words in (
        "thresholds committed before",
        "thresholds that were committed before",
        "committed before the rows",
        "before the rows existed",
        "committed before the final rows",
    ):
        assert words not in text, words


# A small repository


def row(dataset: str, seed: int = 0, **options: object) -> dict:
    return {
        "config": {
            "tier": "cpu",
            "experiment": "10_tiny",
            "dataset": dataset,
            "aligner": "ridge",
            "n_pairs": 64,
            "seed": seed,
            "options": options,
        }
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## 0.1.0\n\n- `cpu 10_tiny b ridge 64 pairs`\n"
    )
    commit(tmp_path, row("a"), row("b"), row("b", 1))
    return tmp_path


def commit(root: Path, *rows: dict) -> None:
    path = root / "paper/results/cpu/10_tiny.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    for words in (
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Rows"],
    ):
        subprocess.run(["git", *words], cwd=root, check=True)


def test_a_cell_that_leaves_without_a_line_is_found(repository: Path, capsys) -> None:
    assert history.main(["cells"], repository) == 0
    commit(repository, row("a"), row("b"))  # one seed fewer: the cell is still there
    assert history.main(["cells"], repository) == 0
    commit(repository, row("a"), row("c"))
    capsys.readouterr()
    assert (
        history.main(["cells"], repository) == 1
        and "lost: cpu 10_tiny b ridge 64 pairs" in capsys.readouterr().out
    )
    (repository / "CHANGELOG.md").write_text(
        "# Changelog\n\n## Withdrawn\n\n| cell | showed |\n|---|---|\n"
        "| `cpu 10_tiny b ridge 64 pairs` | R@10 3 |\n\n## 0.1.0\n"
    )
    assert (
        history.main(["cells"], repository) == 0
        and "3 cells were ever published: 1 are withdrawn, 0 lost" in capsys.readouterr().out
    )


def test_another_option_is_another_cell(repository: Path) -> None:
    commit(repository, row("a", pictures=100), row("b"))
    assert list(history.lost_cells(repository)) == ["cpu 10_tiny a ridge 64 pairs"]


def test_no_history_is_said(tmp_path: Path, capsys) -> None:
    assert history.main(["cells"], tmp_path) == 1 and "no history" in capsys.readouterr().err
    assert history.main([], tmp_path) == 2
