"""The paper from its experiments: run the notebooks, render tables, set the PDF, compare rows.

python tools/paper.py sample --minutes 10    compute some published rows again, and compare
python tools/paper.py run                    execute the experiments of tier cpu that changed
python tools/paper.py tables --tier full     tables, figures and numbers from rows
python tools/paper.py tables --check         fail where tables are not what the rows give
python tools/paper.py pdf                    paper/main.pdf
python tools/paper.py compare                rows of the working tree against the last commit

The steps are the modules of tools/publication.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from publication.comparison import compare
from publication.document import pdf
from publication.notebooks import CellError
from publication.rendering import check_tables, tables
from publication.running import run
from publication.sampling import sample

from alignmerge_nb.core import InputError, lookup

ROOT = Path(__file__).resolve().parent.parent
TIERS = {
    "cpu": "recomputed in minutes on two cores",
    "full": "the published grid, rendered from committed rows",
}
COMMANDS: dict[str, tuple[Callable, str]] = {
    "sample": (sample, "compute a sample of the published rows again, and compare"),
    "run": (run, "execute the experiments"),
    "tables": (tables, "render tables, figures and numbers from rows"),
    "pdf": (pdf, "set main.pdf"),
    "compare": (compare, "compare with the committed rows"),
}


def main(words: list[str] | None = None, root: Path = ROOT) -> int:
    "Exit status of one subcommand."
    options = vars(build_parser().parse_args(words))
    step, _ = COMMANDS[options.pop("command")]
    if options.pop("check", False):
        step = check_tables
    try:
        lookup(TIERS, options["tier"], "tier")
        return int(step(root, **options) or 0)
    except (InputError, CellError) as error:
        print(f"paper: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    "The words of the command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    tiers = "; ".join(f"{tier}: {what}" for tier, what in TIERS.items())
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: python tools/paper.py {name} --tier full",
        )
        command.add_argument("--tier", default="cpu", help=tiers)
        if name == "tables":
            add_table_options(command)
        elif name == "sample":
            add_sample_options(command)
    return parser


def add_table_options(command: argparse.ArgumentParser) -> None:
    "The options of `tables`."
    command.add_argument(
        "--check",
        action="store_true",
        help="change nothing; exit 1 where the tables are not what the rows give",
    )


def add_sample_options(command: argparse.ArgumentParser) -> None:
    "The options of `sample`."
    command.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="time to spend, by the seconds that the published rows record",
    )
    command.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes; 0: one a core",
    )
    command.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of each worker; the published rows were made with one",
    )


def end_kernels() -> None:
    "Kill the processes that this one started: a notebook's thread waits for its kernel."
    for listed in Path("/proc/self/task").glob("*/children"):  # where the system tells which
        for child in listed.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


def end(*_: object) -> None:
    "What SIGTERM does."
    end_kernels()
    sys.exit(143)


def run_as_program(words: list[str] | None = None, root: Path = ROOT) -> None:
    "`main`, ended by signals in such a way that kernels and temporary folders end with it."
    signal.signal(signal.SIGTERM, end)
    try:
        sys.exit(main(words, root))
    except KeyboardInterrupt:
        end_kernels()
        print("paper: interrupted; finished rows are kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run_as_program()
