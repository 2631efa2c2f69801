"Reports, end to end: planted rows to files on disk, LaTeX that compiles, and the paper's own text."

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from alignmerge_nb.aligners.base import Aligner
from alignmerge_nb.aligners.registry import ALIGNERS
from alignmerge_nb.core import InputError
from alignmerge_nb.fusion.registry import HEADS
from alignmerge_nb.paper.figures import (
    declutter,
    gallery_figure,
    lightness,
    line_figure,
    palette,
    save_figure,
    style_of,
)
from alignmerge_nb.paper.rows import RunConfig, depends_on, pack, read_rows, write_rows
from alignmerge_nb.paper.statistics import compare, per_unit, summarise
from alignmerge_nb.paper.tables import check_prose, check_rows, label, numbers, source_of, table

PAPER = Path(__file__).parents[1] / "paper"


def row(
    aligner: str,
    seed: int,
    hits: float,
    dataset: str = "emoji",
    n: int = 200,
    n_pairs: int | None = None,
    unpaired: str = "none",
    **provenance,
) -> dict:
    "A row in which round(hits · n) queries succeed, the same easiest ones for every method."
    config = RunConfig(
        "10_retrieval", "smoke", dataset, aligner, seed=seed, n_pairs=n_pairs, unpaired=unpaired
    )
    ranks = torch.where(torch.arange(n) < round(hits * n), 1, 60)
    birth = {"commit": "c" * 40, "dirty": False, "source": "5" * 64, **provenance}
    metrics = {
        "r10": 100 * round(hits * n) / n,
        "chance_r10": 5.0,
        "control_r10": 5.5 + seed,
        "pairs": 900,
    }
    return {
        "key": config.key,
        "config": dict(vars(config)),
        "metrics": metrics,
        "vectors": {"i2t": pack(ranks), "t2i": pack(ranks)},
        "provenance": birth,
    }


def grid(**hits: float) -> list[dict]:
    return [row(aligner, seed, share) for aligner, share in hits.items() for seed in range(3)]


def test_known_means_and_differences():
    a, b = grid(cca=0.60), grid(ridge=0.50)
    assert summarise(a, "r10").mean == pytest.approx(60)
    gap = compare(a, b, "r10")
    assert gap.mean == pytest.approx(10) and gap.excludes_zero and gap.low > 5 and gap.high < 15
    same = compare(a, a, "r10")
    assert (same.low, same.mean, same.high) == (0, 0, 0) and not same.excludes_zero


def test_interval_matches_the_normal_one():
    n, p = 1000, 0.3
    found = summarise([row("ridge", 0, p, n=n)], "i2t_r10")
    half = 196 * (p * (1 - p) / n) ** 0.5
    assert found.low == pytest.approx(30 - half, abs=0.4) and found.high == pytest.approx(
        30 + half, abs=0.4
    )


def test_pooled_interval_matches_a_resampled_ratio():
    rng = torch.Generator().manual_seed(0)
    count = torch.randint(1, 9, (150,), generator=rng)
    unit = torch.arange(150).repeat_interleave(count)
    skill = torch.rand(150, generator=rng)[unit]
    correct = torch.rand(len(unit), generator=rng) < skill
    found = summarise(
        [
            {
                "config": {"seed": 0},
                "vectors": {"correct": pack(correct), "correct_unit": pack(unit)},
            }
        ],
        "accuracy",
    )
    assert found.mean == pytest.approx(100 * float(correct.double().mean()))
    got = torch.zeros(150, dtype=torch.float64).index_add_(0, unit, correct.double())
    drawn = torch.randint(150, (4000, 150), generator=rng)
    low, high = (
        (100 * got[drawn].sum(1) / count.double()[drawn].sum(1))
        .quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
        .tolist()
    )
    assert found.low == pytest.approx(low, abs=0.6) and found.high == pytest.approx(high, abs=0.6)


def test_accuracy_ignores_gaps_in_picture_numbers():
    sparse = {
        "vectors": {
            "correct": pack(torch.tensor([1, 0, 1])),
            "correct_unit": pack(torch.tensor([40, 40, 999])),
        }
    }
    assert per_unit(sparse, "accuracy").shape == (2,)


def test_table_bold_chance_control_and_missing_cells():
    rows = grid(ridge=0.5, cca=0.6) + [
        row("ridge", seed, 0.4, "tuxpaint", n=50) for seed in range(3)
    ]
    shown = table(
        rows,
        references={
            "chance_r10": "Chance",
            "control_r10": "Wrongly matched pairs",
            "absent": "Absent",
        },
    )
    assert shown.best == {(1, 0)} and shown.cells[1][1] is None and shown.n == (200, 50)
    assert dict(shown.references) == {
        "Chance": (5.0, 5.0),
        "Wrongly matched pairs": (6.5, 6.5),
        "Absent": (None, None),
    }
    text = shown.latex("Caption.", "tab:x")
    assert (
        r"\textbf{60.0}" in text
        and "--" in text
        and text.count(r"\label{tab:x}") == 1
        and "tier ``smoke''" in text
        and "3 seeds (0, 1, 2)" in text
    )
    assert "**60.0**" in shown.markdown() and "**50.0**" not in shown.markdown()


def test_nothing_is_best_in_a_tie_or_alone():
    assert not table(grid(ridge=0.5, cca=0.5)).best
    assert not table(grid(ridge=0.5)).best


def test_two_configurations_never_share_a_cell():
    rows = [row("ridge", seed, 0.5, n_pairs=pairs) for pairs in (64, 256) for seed in range(2)]
    with pytest.raises(InputError, match="split the table by 'n_pairs'"):
        table(rows)
    assert table(rows, columns="n_pairs").columns == ("64", "256")


@pytest.mark.parametrize(
    "name, rows",
    [
        ("dirty", [row("ridge", 0, 0.5, dirty=True)]),
        ("commits", [row("ridge", 0, 0.5), row("ridge", 1, 0.5, source="6" * 64)]),
        ("commits", [row("ridge", 0, 0.5, source=None)]),
        ("commits", [row("ridge", 0, 0.5, data="a"), row("ridge", 1, 0.5, data="b")]),
        ("seeds", [row("ridge", 0, 0.5), row("ridge", 1, 0.5), row("cca", 0, 0.5)]),
        ("unconverged", [{**row("align_merge", 0, 0.5), "metrics": {"converged": 0.0}}]),
    ],
)
def test_refusals_and_what_lifts_them(name, rows):
    with pytest.raises(InputError, match=name) as caught:
        table(rows)
    assert all(word in str(caught.value) for word in ("Got", "Wanted", f"allow=('{name}',)"))
    assert table(rows, allow=(name,)).daggers == (
        frozenset({(0, 0)}) if name == "unconverged" else frozenset()
    )


def test_commits_that_leave_library_and_data_alone_may_mix():
    check_rows(
        [
            row("ridge", 0, 0.5, data="a"),
            row("ridge", 1, 0.5, data="a", commit="d" * 40),
            row("ridge", 0, 0.5, "tuxpaint", data="b"),
            row("ridge", 1, 0.5, "tuxpaint", data="b"),
        ]
    )


def test_tiers_never_mix_and_no_rows_is_an_error():
    other = row("ridge", 1, 0.5)
    other["config"]["tier"] = "full"
    with pytest.raises(InputError, match="one tier"):
        check_rows(
            [row("ridge", 0, 0.5), other], allow=("commits", "seeds", "dirty", "unconverged")
        )
    with pytest.raises(InputError, match="make paper"):
        check_rows([])


def test_rows_from_disk_give_the_same_table(tmp_path):
    rows = grid(ridge=0.5, cca=0.6)
    write_rows(rows, tmp_path / "rows.jsonl")
    back = read_rows(tmp_path / "rows.jsonl")
    assert {(cell.mean, cell.low) for line in table(back).cells for cell in line} == {
        (cell.mean, cell.low) for line in table(rows).cells for cell in line
    }


def test_figures_are_deterministic_and_keep_type(tmp_path):
    rows = [
        row(aligner, seed, 0.1 + share * step, n_pairs=64 * 4**step, unpaired=kind)
        for aligner, share, kind in (
            ("ridge", 0.2, "none"),
            ("align_merge", 0.22, "disjoint"),
            ("align_merge", 0.15, "none"),
        )
        for step in range(3)
        for seed in range(2)
    ]
    rows += [row("conse", seed, 0.3, n_pairs=0) for seed in range(2)]
    paths = [save_figure(line_figure(rows), tmp_path / name, "lines") for name in "ab"]
    for one, other in zip(*paths, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert (
        b"/FontType 3" not in paths[0][0].read_bytes()
        and b"CreationDate" not in paths[0][0].read_bytes()
    )
    texts = {text.get_text() for text in line_figure(rows).axes[0].texts}
    assert texts == {"AlignMerge", "AlignMerge, pairs only", "Ridge", "ConSE, 0 pairs", "chance"}


def test_kinds_of_unpaired_data_are_told_apart():
    rows = [
        row("align_merge", 0, 0.3, n_pairs=pairs, unpaired=kind)
        for kind in ("none", "disjoint", "shuffled")
        for pairs in (64, 256)
    ]
    axes = line_figure(rows).axes[0]
    assert {text.get_text() for text in axes.texts} == {
        "AlignMerge, pairs only",
        "AlignMerge, disjoint",
        "AlignMerge, same items",
        "chance",
    }
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o"]
    assert len({(str(line._dash_pattern), line.get_markerfacecolor()) for line in drawn}) == 3
    axes.figure.canvas.draw()
    assert max(text.get_window_extent().x1 for text in axes.texts) <= axes.figure.bbox.x1


def test_labels_do_not_overlap():
    rows = [
        row(aligner, 0, 0.5, n_pairs=pairs)
        for aligner in palette(
            ["ridge", "cca", "procrustes", "align_merge", "contrastive_mlp", "ot_align_merge"]
        )
        for pairs in (64, 256)
    ]
    figure = line_figure(rows)
    figure.canvas.draw()
    boxes = sorted(
        (text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0
    )
    assert all(upper.y0 >= lower.y0 + 0.9 * lower.height for lower, upper in pairwise(boxes))
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_every_aligner_can_be_drawn():
    rows = [
        row(aligner, 0, 0.01 * (position + 1), n_pairs=pairs)
        for position, aligner in enumerate(ALIGNERS)
        for pairs in (64, 256)
    ]
    figure = line_figure(rows)
    figure.canvas.draw()
    texts = figure.axes[0].texts
    assert {text.get_text() for text in texts} == {*map(label, ALIGNERS), "chance"}
    boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.y0)
    assert all(upper.y0 >= lower.y0 + 0.9 * lower.height for lower, upper in pairwise(boxes))
    assert boxes[0].y0 >= 0 and boxes[-1].y1 <= figure.bbox.y1


def test_every_method_has_a_look_of_its_own():
    styles = [style_of(name) for name in ALIGNERS]
    assert len({(style.colour, style.marker, style.line) for style in styles}) == len(styles)
    assert {name: style_of(name) for name in HEADS}.keys() == HEADS.keys()
    with pytest.raises(InputError, match="Did you mean 'ridge'"):
        style_of("rigde")


def test_a_registered_aligner_needs_no_style_and_no_name(monkeypatch):
    monkeypatch.setitem(ALIGNERS, "my_method", type("MyMethod", (Aligner,), {}))
    rows = [row("my_method", 0, 0.5, n_pairs=pairs) for pairs in (64, 256)]
    texts = line_figure(rows).axes[0].texts
    assert {text.get_text() for text in texts} == {"my method", "chance"}
    monkeypatch.setattr(ALIGNERS["my_method"], "label", "Mine")
    assert label("my_method") == "Mine"


def test_spread_against_brute_force():
    from scipy.optimize import minimize

    wishes, gap = torch.tensor([0.1, 0.15, 0.5, 0.55, 0.56]).double().numpy(), 0.1
    best = minimize(
        lambda q: ((q - wishes) ** 2).sum(),
        wishes,
        constraints=[
            {"type": "ineq", "fun": lambda q, i=i: q[i + 1] - q[i] - gap} for i in range(4)
        ],
        tol=1e-12,
    )
    assert declutter(list(wishes), gap) == pytest.approx(best.x, abs=1e-4)


def test_lightness_of_known_colours():
    assert lightness("#ffffff") == pytest.approx(100, abs=0.01) and lightness(
        "#777777"
    ) == pytest.approx(50.03, abs=0.1)


def test_gallery_names_missing_images(tmp_path):
    with pytest.raises(InputError, match="no image at"):
        gallery_figure(["a"], [[(tmp_path / "x.png", True)]])


def test_typed_numbers_are_found():
    text = "\n".join(
        [
            "% results begin",
            r"\cref{tab:1} \input{tables/x1.tex} \includegraphics[width=.5\linewidth]{f1.pdf} "
            r"\citep[p.~3]{a2013} \gain{} % 12",
            r"3 points \% 4",
            "% results end",
            "5",
        ]
    )
    assert [line.split(":")[0] for line in check_prose(text)] == ["line 3"]
    for broken in ("% results begin", "% results end", "% results begin\n% results begin", "text"):
        with pytest.raises(InputError, match="results"):
            check_prose(broken)


def test_the_paper_types_no_result():
    assert check_prose((PAPER / "main.tex").read_text()) == []


def test_every_reference_is_cited_and_every_citation_exists():
    import re

    cited = {
        key.strip()
        for keys in re.findall(
            r"\\cite[a-z]*(?:\[[^]]*\])*\{([^}]*)\}", (PAPER / "main.tex").read_text()
        )
        for key in keys.split(",")
    }
    assert cited == set(re.findall(r"@\w+\{(\w+),", (PAPER / "refs.bib").read_text()))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex on this machine")
def test_tables_and_numbers_compile(tmp_path):
    rows = grid(ridge=0.5, ot_align_merge=0.6) + [
        row("ridge", seed, 0.04, "tuxpaint") for seed in range(3)
    ]
    rows[0]["metrics"]["converged"] = 0.0
    shown = table(rows, references={"chance_r10": "Chance & luck"}, allow=("unconverged",))
    wide = table([row("ridge", 0, 0.5, n_pairs=pairs) for pairs in (1, 2, 3, 4)], columns="n_pairs")
    (tmp_path / "numbers.tex").write_text(numbers({"gain": (r"5\,\%", "10_retrieval: tier=smoke")}))
    body = (
        r"\input{numbers.tex}" + shown.latex("A.", "tab:a") + wide.latex("B.", "tab:b") + r"\gain"
    )
    (tmp_path / "t.tex").write_text(
        r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\usepackage{booktabs}\begin{document}"
        + body
        + r"\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]


# Rows of earlier code


def fresh(row: dict) -> dict:
    "The row as today's code would have made it."
    return {
        **row,
        "provenance": {
            **row["provenance"],
            "task": "retrieval_run",
            "closure": depends_on("retrieval_run", row["config"]),
        },
    }


def test_cells_of_earlier_code_are_marked():
    old, new = grid(ridge=0.5), [fresh(each) for each in grid(cca=0.6)]
    shown = table(old + new)
    assert (
        shown.stale == {(0, 0)}
        and "50.0‡" in shown.markdown()
        and "60.0‡" not in shown.markdown()
        and "‡: made by earlier code" in shown.note
    )
    assert r"\textsuperscript{\ddag}" in shown.latex("Caption.", "tab:x")
    assert (
        table(old).all_stale
        and "‡" not in table(old).markdown()
        and "All rows were made by earlier code" in table(old).note
    )
    assert not table(new).stale and "earlier code" not in table(new).note
    assert "3 of earlier code" in source_of(old + new, "dataset") and "earlier" not in source_of(
        new, "dataset"
    )


@pytest.mark.parametrize("change", [{"closure": "another"}, {"closure": None}])
def test_one_method_is_one_code(change: dict):
    rows = [fresh(row("ridge", seed, 0.5)) for seed in range(2)] + [
        fresh(row("cca", seed, 0.5, commit="d" * 40)) for seed in range(2)
    ]
    check_rows(rows)
    rows[1]["provenance"] |= change
    with pytest.raises(InputError, match="one code for each method"):
        check_rows(rows)
