"The PDF: numbers of all experiments as macros, and LaTeX."

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from alignmerge_nb.core import InputError, atomic_path
from alignmerge_nb.paper.tables import check_prose

MACRO = re.compile(r"^\\newcommand\{\\([A-Za-z]+)\}", re.M)
LATEXMK = (
    "latexmk",
    "-pdf",
    "-interaction=nonstopmode",
    "-halt-on-error",
    "-file-line-error",
    "-outdir=build",
    "main.tex",
)


def write_numbers(root: Path, tier: str) -> None:
    "Write paper/numbers.tex: the tier, and the numbers of all experiments."
    parts = [f"\\newcommand{{\\tier}}{{{tier}}}\n"]
    owner = {"tier": "the tier itself"}
    for name, path in sorted(_number_files(root, tier).items()):
        text = path.read_text()
        parts.append(f"\\newcommand{{\\tier{_camel_case(name)}}}{{{path.parent.name}}}\n")
        for macro in MACRO.findall(text):
            if macro in owner:
                raise InputError(
                    f"\\{macro} in {path.name} and in {owner[macro]}",
                    "every number once",
                    "Rename one of them in its notebook.",
                )
            owner[macro] = path.name
        parts.append(text)
    with atomic_path(root / "paper" / "numbers.tex") as part:
        part.write_text("".join(parts))


def _number_files(root: Path, tier: str) -> dict[str, Path]:
    "The numbers of each experiment by file name, of tier `cpu` where the tier has none."
    tables = root / "paper" / "tables"
    own = {path.name: path for path in (tables / tier).glob("*.numbers.tex")}
    if not own:
        raise InputError(
            f"no numbers of tier {tier}",
            f"paper/tables/{tier}/*.numbers.tex",
            f"Run `make run tables TIER={tier}`.",
        )
    return {path.name: path for path in (tables / "cpu").glob("*.numbers.tex")} | own


def _camel_case(name: str) -> str:
    "The experiment of a file of numbers as part of a macro: 'Fusion' of 40_fusion.numbers.tex."
    letters = re.sub(r"\d", "", name.removesuffix(".numbers.tex"))
    return "".join(word.capitalize() for word in letters.split("_"))


def pdf(root: Path, tier: str) -> int:
    "paper/main.pdf with the numbers, tables and figures of the tier, where there is LaTeX."
    paper = root / "paper"
    write_numbers(root, tier)
    _check_results((paper / "main.tex").read_text())
    if not shutil.which("latexmk"):
        return _say_missing("latexmk")
    finished = _latex(root)
    path = paper / "build" / "main.log"
    log = path.read_text(errors="replace") if path.exists() else ""
    if finished.returncode:
        package = re.search(r"File [`'](\S+\.(?:sty|cls))' not found", log)
        if package:
            return _say_missing(f"LaTeX package {package[1]}")
        print("paper: LaTeX failed; paper/build/main.log has the rest.", file=sys.stderr)
        lines = latex_errors(log) or finished.stdout.splitlines()[-10:]
        print("\n".join(lines), file=sys.stderr)
        return 1
    undefined = re.findall(r"Warning: ((?:Reference|Citation) .*? undefined)", log)
    for line in dict.fromkeys(undefined):
        print(f"paper: {line}")
    with atomic_path(paper / "main.pdf") as part:
        shutil.copyfile(paper / "build" / "main.pdf", part)
    print(f"paper/main.pdf ({tier})")
    return 0


def _check_results(text: str) -> None:
    "Raise an `InputError` where a number of the results is typed."
    typed = check_prose(text)
    if typed:
        raise InputError(
            "numbers typed into the results of main.tex:\n  " + "\n  ".join(typed) + "\n",
            "macros of numbers.tex",
            "Add them to a notebook's numbers.",
        )


def _say_missing(program: str) -> int:
    "Say that the PDF is not made; the exit status."
    print(
        f"paper: no {program}: numbers.tex is written, main.pdf is not made; "
        "`make system` as root installs it."
    )
    return 0


def _latex(root: Path) -> subprocess.CompletedProcess[str]:
    "Run LaTeX, dated by the last commit: the same commit gives the same bytes."
    words = ["git", "-C", str(root), "log", "-1", "--format=%ct"]
    date = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    settings = {
        "SOURCE_DATE_EPOCH": date or "0",
        "FORCE_SOURCE_DATE": "1",
        "max_print_line": "1000",
    }
    return subprocess.run(
        LATEXMK,
        cwd=root / "paper",
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )


def latex_errors(log: str) -> list[str]:
    "The error lines of a LaTeX log, each with the two lines that show the place."
    lines = log.splitlines()
    starts = [number for number, line in enumerate(lines) if re.match(r"! |\S+\.\w+:\d+: ", line)]
    shown = [line for start in starts[:3] for line in lines[start : start + 3]]
    return [line for line in shown if line.strip()]
