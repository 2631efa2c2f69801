"""How easy the library is to carry on, in numbers that can be counted: `python tools/measures.py`.

Floors are the longest chain of imports between modules; a public name is one without an underscore that a module
defines; syntax nodes are counted without contexts, operators, arguments, keywords and aliases; a code line is neither
blank nor a comment.
"""

from __future__ import annotations

import ast
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY, NOTEBOOKS = ROOT / "alignmerge_nb", ROOT / "nbs"
API = (
    "core",
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
THIN = (
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


def modules() -> dict[str, Path]:
    "Every module of the library by its dotted name."
    paths = sorted(path for path in LIBRARY.rglob("[a-z]*.py"))
    return {".".join(path.relative_to(LIBRARY).with_suffix("").parts): path for path in paths}


def imported_modules(module: str, tree: ast.Module) -> Iterator[str]:
    "The modules of the library that a module imports when it is loaded."
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom):
            continue
        package, _, rest = (node.module or "").partition(".")
        if node.level:
            yield ".".join([*module.split(".")[: -node.level], *filter(None, [node.module])])
        elif package == LIBRARY.name:
            yield rest


def count_floors(edges: dict[str, set[str]]) -> int:
    "Modules on the longest chain of imports; a circle raises."
    depth: dict[str, int] = {}

    def measure(module: str, above: tuple[str, ...] = ()) -> int:
        if module in above:
            raise SystemExit(f"measures: a circle through {module}")
        if module not in depth:
            below = [measure(other, (*above, module)) for other in edges.get(module, ())]
            depth[module] = 1 + max(below, default=0)
        return depth[module]

    return max(measure(module) for module in edges)


def count_nodes(tree: ast.AST) -> int:
    "Syntax nodes that a reader has to understand."
    return sum(not isinstance(node, THIN) for node in ast.walk(tree))


def count_code_lines(text: str) -> int:
    "Lines that are neither blank nor a comment."
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") for line in text.splitlines()
    )


def public_names(tree: ast.Module) -> list[str]:
    "The names without an underscore that a module defines."
    names = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    for node in tree.body:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def export_cells() -> list[int]:
    "Lines of every export cell."
    found = []
    for path in NOTEBOOKS.rglob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and source.startswith("#| export"):
                found.append(len(source.splitlines()) - 1)
    return sorted(found)


def main() -> None:
    "Print the measures beside what is wanted."
    trees = {name: ast.parse(path.read_text()) for name, path in modules().items()}
    edges = {
        name: {other for other in imported_modules(name, tree) if other in trees}
        for name, tree in trees.items()
    }
    nodes = sum(map(count_nodes, trees.values()))
    lines = sum(count_code_lines(path.read_text()) for path in modules().values())
    functions = [
        node
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    lengths = [node.end_lineno - node.lineno + 1 for node in functions]
    api = [
        name
        for module, tree in trees.items()
        if module.split(".")[0] in API
        for name in public_names(tree)
    ]
    cells = export_cells()
    rows = (
        ("modules", len(trees), ""),
        ("floors", count_floors(edges), "≤ 7"),
        ("public names in API packages", len(api), "≤ 250"),
        ("syntax nodes per code line", round(nodes / lines, 1), "≤ 4.5"),
        (
            "syntax nodes per function, median",
            statistics.median(map(count_nodes, functions)),
            "≤ 35",
        ),
        ("functions over 60 lines", sum(length > 60 for length in lengths), "0"),
        ("lines of an export cell, 90th percentile", cells[int(0.9 * len(cells))], "≤ 25"),
        ("lines of an export cell, longest", cells[-1], "≤ 60"),
    )
    for what, value, wanted in rows:
        print(f"{what:42} {value:>7}   {wanted}")


if __name__ == "__main__":
    main()
