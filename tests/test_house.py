"""Where things live: imports go up the list of floors, without circles, to definitions."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import measures
import pytest

from alignmerge_nb.paper import rows

LIBRARY = Path(__file__).resolve().parent.parent / "alignmerge_nb"
LISTED = re.search(r"```text\n(.*?)```", (LIBRARY.parent / "ARCHITECTURE.md").read_text(), re.S)[1]
FLOORS = [set(re.split(r" {2,}", line)[0].split()) for line in LISTED.strip().splitlines()]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = {
    ".".join(path.relative_to(LIBRARY).with_suffix("").parts): path
    for path in sorted(LIBRARY.rglob("[a-z]*.py"))
}
LATE = {("aligners.base", "aligners.registry")}  # a saved aligner is found by the name of its class


def imported_from(node: ast.ImportFrom, module: str) -> str | None:
    "The module of the library that a statement imports from; None: another package."
    if node.level:
        parents = module.split(".")[: -node.level]
        return ".".join([*parents, *filter(None, [node.module])])
    package, _, rest = (node.module or "").partition(".")  # nbdev leaves what is in parentheses
    return rest if package == "alignmerge_nb" else None


def imports(module: str, path: Path) -> list[tuple[str, str, bool]]:
    "(module, name, whether at import time) of everything that a module takes from the others."
    tree, found = ast.parse(path.read_text()), []
    typing = {
        id(each)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for each in ast.walk(node)
    }
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.ImportFrom):
            origin = imported_from(node, module)
            if origin is not None:
                found += [(origin, alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [
                (alias.name.removeprefix("alignmerge_nb."), "", id(node) in top)
                for alias in node.names
                if alias.name.startswith("alignmerge_nb.")
            ]
    return found


EDGES = {
    (module, origin)
    for module, path in MODULES.items()
    for origin, _, _ in imports(module, path)
    if origin
} - LATE


def test_every_folder_has_its_floor() -> None:
    assert sorted(FLOOR) == sorted({module.split(".")[0] for module in MODULES})
    assert sum(map(len, FLOORS)) == len(FLOOR)


@pytest.mark.parametrize("module", MODULES)
def test_arrows_go_down(module: str) -> None:
    own = FLOOR[module.split(".")[0]]
    for start, origin in EDGES:
        there = origin.split(".")[0]
        if start == module and there != module.split(".")[0]:
            assert FLOOR[there] < own, f"{module} imports {origin}"


def test_no_circles() -> None:
    waiting = {module: {origin for start, origin in EDGES if start == module} for module in MODULES}
    while ready := [module for module, needs in waiting.items() if not needs & set(waiting)]:
        for module in ready:
            del waiting[module]
    assert not waiting, waiting


@pytest.mark.parametrize("module", MODULES)
def test_every_import_leads_to_a_definition(module: str) -> None:
    "Else a row's closure would miss what stands behind it."
    defined = rows.definitions(LIBRARY)[0]
    for origin, name, _ in imports(module, MODULES[module]):
        if origin in MODULES and name:
            assert (origin, name) in defined, f"{module}: from {origin} import {name}"
        else:
            assert (
                (module, origin) in LATE or (origin, name) in {("", "__version__")} or not name
            ), f"{module}: from {origin} import {name}"


def test_the_face_is_small_and_leads_to_its_modules() -> None:
    import alignmerge_nb

    assert len(alignmerge_nb.__all__) <= 30 and set(dir(alignmerge_nb)) == {
        *alignmerge_nb.__all__,
        "__version__",
    }
    for name in alignmerge_nb.__all__:
        assert getattr(alignmerge_nb, name).__module__.startswith("alignmerge_nb."), name
    with pytest.raises(AttributeError, match="it offers"):
        getattr(alignmerge_nb, "nothing")  # noqa: B009  (the attribute is what is tested)


def test_types_of_every_api_package_are_checked() -> None:
    settings = tomllib.loads((LIBRARY.parent / "pyproject.toml").read_text())["tool"]["mypy"]
    assert set(settings["packages"]) == {f"alignmerge_nb.{name}" for name in measures.API}
    for override in settings.get("overrides", []):
        for name in override["module"]:
            assert name.removeprefix("alignmerge_nb.") in MODULES, f"{name} is no module"


# Measures


def test_no_measure_is_worse_than_its_bound(capsys) -> None:
    values = measures.measures(measures.read_modules())
    assert values.keys() == measures.BOUNDS.keys()
    assert measures.check(values) == 0, capsys.readouterr().err


def test_a_worse_measure_fails_and_a_better_one_is_named(capsys) -> None:
    values = {name: bound.bound for name, bound in measures.BOUNDS.items()}
    assert measures.check(values) == 0 and not capsys.readouterr().out
    assert measures.check({**values, "circles": 1}) == 1
    assert "circles: 1, bound 0" in capsys.readouterr().err
    assert measures.check({**values, "floors": 1}) == 0
    assert "bound of 'floors' can be lowered to 1" in capsys.readouterr().out


def test_circles_and_upward_arrows_are_found() -> None:
    graph = {"lab.a": {"core"}, "core": {"data.b"}, "data.b": {"data.c"}, "data.c": {"data.b"}}
    assert measures.upward_arrows(graph) == ["core → data.b"]
    assert measures.circles(graph) in (
        ["data.b → data.c → data.b"],
        ["data.c → data.b → data.c"],
    )
    assert measures.count_floors(graph) == 4
