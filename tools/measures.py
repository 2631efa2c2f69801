"""How easy the library is to carry on, in numbers that can be counted.

python tools/measures.py              the measures, beside the goal and the bound of each
python tools/measures.py --check      fail where a measure is worse than its bound
python tools/measures.py --by-file    the files furthest from the goals, the worst first

A floor is a step of the longest chain of imports between modules; modules that import each other
in a circle share one. An upward arrow is an import from a folder that ARCHITECTURE.md lists on the
same floor or below. A public name is one without an underscore that a module defines. Syntax nodes
are counted without contexts, operators, arguments, keywords and aliases; a code line is neither
blank nor a comment.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "alignmerge_nb"
NOTEBOOKS = ROOT / "nbs"
API = (
    "core",
    "pretrained",
    "features",
    "data",
    "encoders",
    "transport",
    "flows",
    "training",
    "aligners",
    "metrics",
    "fusion",
    "merging",
    "testing",
)
THIN = (  # nodes that a reader does not see as such
    ast.expr_context,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
    ast.boolop,
    ast.arguments,
    ast.arg,
    ast.keyword,
    ast.alias,
)
LONG_FUNCTION = 60  # lines
WIDE_LINE = 100  # columns


class Bound(NamedTuple):
    "What a measure should be, and what it must not exceed."

    goal: float
    bound: float  # recorded; lower it when a measure gets better


BOUNDS = {
    "floors": Bound(7, 17),
    "circles": Bound(0, 0),
    "upward arrows": Bound(0, 0),
    "public names in API packages": Bound(250, 371),
    "syntax nodes per code line": Bound(4.5, 4.9),
    "syntax nodes per function, median": Bound(35, 48),
    "functions over 60 lines": Bound(0, 2),
    "lines over 100 columns": Bound(0, 76),
    "lines of an export cell, 90th percentile": Bound(25, 41),
    "lines of an export cell, longest": Bound(60, 220),
}


@dataclass(frozen=True)
class Module:
    "A module of the library."

    name: str  # dotted, below the library
    text: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        "The sub-package, or the module itself at the top."
        return self.name.split(".")[0]

    @property
    def nodes(self) -> int:
        "Syntax nodes that a reader has to understand."
        return count_nodes(self.tree)

    @property
    def lines(self) -> int:
        "Lines that are neither blank nor a comment."
        stripped = (line.strip() for line in self.text.splitlines())
        return sum(bool(line) and not line.startswith("#") for line in stripped)

    @property
    def functions(self) -> list[ast.FunctionDef]:
        "Functions and methods, inner ones included."
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)]

    @property
    def long_functions(self) -> int:
        "Functions over 60 lines."
        lengths = (node.end_lineno - node.lineno + 1 for node in self.functions)
        return sum(length > LONG_FUNCTION for length in lengths)

    @property
    def wide_lines(self) -> int:
        "Lines over 100 columns, generated lists of names apart."
        written = re.sub(r"^__all__ = \[.*?\]$", "", self.text, flags=re.S | re.M)
        return sum(len(line) > WIDE_LINE for line in written.splitlines())


def read_modules() -> dict[str, Module]:
    "Every module of the library by its dotted name."
    modules = {}
    for path in sorted(LIBRARY.rglob("[a-z]*.py")):
        name = ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
        text = path.read_text()
        modules[name] = Module(name, text, ast.parse(text))
    return modules


def count_nodes(tree: ast.AST) -> int:
    "Syntax nodes that a reader has to understand."
    return sum(not isinstance(node, THIN) for node in ast.walk(tree))


def public_names(module: Module) -> list[str]:
    "The names without an underscore that a module defines."
    names = []
    for node in module.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return [name for name in names if not name.startswith("_")]


# Imports


def imported_modules(module: Module) -> Iterator[str]:
    "The modules of the library that a module imports when it is loaded."
    for node in module.tree.body:
        if not isinstance(node, ast.ImportFrom):
            continue
        package, _, rest = (node.module or "").partition(".")
        if node.level:
            parents = module.name.split(".")[: -node.level]
            yield ".".join([*parents, *filter(None, [node.module])])
        elif package == LIBRARY.name:
            yield rest


def import_graph(modules: Mapping[str, Module]) -> dict[str, set[str]]:
    "What each module imports from the library."
    return {
        name: {other for other in imported_modules(module) if other in modules}
        for name, module in modules.items()
    }


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    "Chains of imports that lead back to their start, as 'a → b → a'."
    rest = {name: set(others) for name, others in graph.items()}
    found = []
    while True:
        try:
            TopologicalSorter(rest).prepare()
        except CycleError as error:
            chain = error.args[1][::-1]
            found.append(" → ".join(chain))
            rest[chain[0]].discard(chain[1])  # cut, so that the next one is found
        else:
            return found


def count_floors(graph: Mapping[str, set[str]]) -> int:
    "Modules on the longest chain of imports; circles are walked once."
    depth: dict[str, int] = {}

    def measure(name: str, above: frozenset[str]) -> int:
        if name not in depth:
            below = graph[name] - above - {name}
            depth[name] = 1 + max((measure(each, above | {name}) for each in below), default=0)
        return depth[name]

    return max(measure(name, frozenset()) for name in graph)


def floor_of_folders() -> dict[str, int]:
    "The floor of each folder in ARCHITECTURE.md, from the top."
    text = (ROOT / "ARCHITECTURE.md").read_text()
    listed = re.search(r"```text\n(.*?)```", text, re.S)[1].strip().splitlines()
    floors = [re.split(r" {2,}", line)[0].split() for line in listed]
    return {name: number for number, names in enumerate(floors) for name in names}


def upward_arrows(graph: Mapping[str, set[str]]) -> list[str]:
    "Imports from another folder of the same floor or of one below, as 'a → b'."
    floor = floor_of_folders()
    arrows = []
    for name, others in graph.items():
        own = name.split(".")[0]
        for other in sorted(others):
            folder = other.split(".")[0]
            if folder != own and floor[folder] >= floor[own]:
                arrows.append(f"{name} → {other}")
    return arrows


# Notebooks


def export_cells() -> dict[str, list[int]]:
    "Lines of the export cells of each notebook."
    cells = {}
    for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
        content = json.loads(path.read_text())["cells"]
        sources = ["".join(cell["source"]) for cell in content if cell["cell_type"] == "code"]
        exported = [source for source in sources if source.startswith("#| export")]
        cells[str(path.relative_to(ROOT))] = [len(source.splitlines()) - 1 for source in exported]
    return cells


# Reports


def measures(modules: Mapping[str, Module]) -> dict[str, float]:
    "The value of each measure of `BOUNDS`."
    graph = import_graph(modules)
    every = list(modules.values())
    api = [name for module in every if module.folder in API for name in public_names(module)]
    functions = [count_nodes(function) for module in every for function in module.functions]
    density = sum(module.nodes for module in every) / sum(module.lines for module in every)
    cells = sorted(length for lengths in export_cells().values() for length in lengths)
    return {
        "floors": count_floors(graph),
        "circles": len(circles(graph)),
        "upward arrows": len(upward_arrows(graph)),
        "public names in API packages": len(api),
        "syntax nodes per code line": round(density, 1),
        "syntax nodes per function, median": statistics.median(functions),
        "functions over 60 lines": sum(module.long_functions for module in every),
        "lines over 100 columns": sum(module.wide_lines for module in every),
        "lines of an export cell, 90th percentile": cells[int(0.9 * len(cells))],
        "lines of an export cell, longest": cells[-1],
    }


def print_measures(values: Mapping[str, float], modules: Mapping[str, Module]) -> None:
    "Print each measure with its goal and bound, and name what must not be at all."
    print(f"{'':42} {'value':>7} {'goal':>7} {'bound':>7}")
    for name, value in values.items():
        goal, bound = BOUNDS[name]
        print(f"{name:42} {value:>7g} {goal:>7g} {bound:>7g}")
    graph = import_graph(modules)
    for circle in circles(graph):
        print(f"circle: {circle}")
    for arrow in upward_arrows(graph):
        print(f"upward: {arrow}")


def check(values: Mapping[str, float]) -> int:
    "Print the measures that are worse than their bounds; 1 where there is one."
    worse = [name for name, value in values.items() if value > BOUNDS[name].bound]
    for name in worse:
        print(f"measures: {name}: {values[name]:g}, bound {BOUNDS[name].bound:g}", file=sys.stderr)
    better = [name for name, value in values.items() if value < BOUNDS[name].bound]
    for name in better:
        print(f"measures: the bound of {name!r} can be lowered to {values[name]:g}")
    return bool(worse)


def print_files(modules: Mapping[str, Module], count: int) -> None:
    "Print the worst modules and notebooks."
    heads = ("density", "median", "public", "long", "wide")
    print(f"{'module':38} " + " ".join(f"{head:>8}" for head in heads))
    densest = sorted(modules.values(), key=density_of, reverse=True)
    for module in densest[:count]:
        sizes = [count_nodes(function) for function in module.functions]
        values = (
            round(density_of(module), 1),
            statistics.median(sizes or [0]),
            len(public_names(module)),
            module.long_functions,
            module.wide_lines,
        )
        print(f"{module.name:38} " + " ".join(f"{value:>8g}" for value in values))
    longest = {name: max(lengths) for name, lengths in export_cells().items() if lengths}
    print(f"\n{'notebook':54} longest export cell")
    for name in sorted(longest, key=longest.__getitem__, reverse=True)[:count]:
        print(f"{name:54} {longest[name]:>19}")


def density_of(module: Module) -> float:
    "Syntax nodes per code line."
    return module.nodes / max(module.lines, 1)


def main(words: list[str] | None = None) -> int:
    "Exit status."
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail where a bound is exceeded")
    parser.add_argument("--by-file", action="store_true", help="print the worst files")
    parser.add_argument("--count", type=int, default=15, help="files that --by-file prints")
    options = parser.parse_args(words)
    modules = read_modules()
    if options.by_file:
        print_files(modules, options.count)
        return 0
    values = measures(modules)
    print_measures(values, modules)
    return check(values) if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
