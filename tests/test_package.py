"""The package as `pip install` users get it: the wheel, its metadata, and the cost of importing."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "timm",
    "transformers",
    "torchvision",
    "matplotlib",
    "seaborn",
    "ot",
    "sklearn",
    "scipy",
    "pandas",
    "nbdev",
    "fastcore",
    "IPython",
)


def settings() -> configparser.SectionProxy:
    "settings.ini."
    parser = configparser.ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    "The wheel, built from a copy of what git tracks or would track, without stray files."
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if not (ROOT / name).is_file() or name.startswith("paper/"):
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-w",
            str(out),
            str(source),
        ],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory) -> str:
    "A fresh environment with the wheel, and this one's packages without the editable checkout."
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "outer.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )  # a folder added by .pth does not run its own .pth files
    return str(home / "bin" / "python")


def run(python: str, script: str, cwd: Path) -> str:
    "What a script prints, outside of the checkout."
    env = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")
    }
    done = subprocess.run([python, "-c", script], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = [name for name in names if ".dist-info/" not in name]
    marker = "alignmerge_nb/py.typed"  # type checkers read the annotations of a package that has it
    assert marker in inside
    modules = set(inside) - {marker}
    assert all(re.fullmatch(r"alignmerge_nb/(\w+/)*\w+\.py", name) for name in modules), modules
    assert modules == {
        str(path.relative_to(ROOT)) for path in (ROOT / "alignmerge_nb").rglob("*.py")
    }
    assert any(name.endswith("LICENSE") for name in names)
    assert wheel.stat().st_size < 1_000_000


def test_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    text = archive.read(
        next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    ).decode()
    said, told = HeaderParser().parsestr(text), settings()
    assert (said["Name"], said["Version"], said["Summary"]) == (
        "alignmerge-nb",
        told["version"],
        told["description"],
    )
    assert "Apache-2.0" in (said["License"] or said["License-Expression"] or "")
    assert said["Requires-Python"] == f">={told['min_python']}"
    needed = [Requirement(line) for line in said.get_all("Requires-Dist")]
    assert {str(part) for part in needed if part.marker is None} == {
        str(Requirement(word)) for word in shlex.split(told["requirements"])
    }
    assert set(said.get_all("Provides-Extra")) == {
        key.removesuffix("_requirements") for key in told if key.endswith("_requirements")
    }
    assert "# AlignMerge" in said.get_payload()


def test_installed_version(clean_python: str, tmp_path: Path) -> None:
    where, version = run(
        clean_python,
        "import alignmerge_nb; print(alignmerge_nb.__file__, alignmerge_nb.__version__)",
        tmp_path,
    ).split()
    assert not where.startswith(str(ROOT / "alignmerge_nb")) and version == settings()["version"]


def test_import_is_light(clean_python: str, tmp_path: Path) -> None:
    "Importing adds under 0.3 s to `import torch`, and pulls in nothing that a user may never need."
    script = f"""
import json, sys, time
import torch
before, start = set(sys.modules), time.perf_counter()
import alignmerge_nb
seconds = time.perf_counter() - start
packages = {{name.partition('.')[0] for name in set(sys.modules) - before}}
print(json.dumps([seconds, sorted(packages & set({HEAVY!r}))]))
"""
    run(clean_python, script, tmp_path)  # the first one writes byte code
    told = [json.loads(run(clean_python, script, tmp_path)) for _ in range(3)]
    assert [heavy for _, heavy in told] == [[]] * len(told)
    assert statistics.median(seconds for seconds, _ in told) < 0.3


def test_every_module_imports_without_the_heavy_ones(clean_python: str, tmp_path: Path) -> None:
    library = ROOT / "alignmerge_nb"
    modules = sorted(
        ".".join(path.relative_to(library).with_suffix("").parts)
        for path in library.rglob("[a-z]*.py")
    )
    script = f"""
import importlib, json, sys
import torch
seen, blame = set(sys.modules), {{}}
for module in {modules!r}:
    importlib.import_module("alignmerge_nb." + module)
    packages = {{name.partition(".")[0] for name in set(sys.modules) - seen}}
    if heavy := packages & set({HEAVY!r}):
        blame[module] = sorted(heavy)
    seen = set(sys.modules)
print(json.dumps(blame))
"""
    assert json.loads(run(clean_python, script, tmp_path)) == {}


def test_constraints_cover_every_extra() -> None:
    "Whatever settings.ini asks for is pinned, and the pin is in its range."
    pins = {
        canonicalize_name(pin.name): pin
        for line in (ROOT / "constraints.txt").read_text().split("\n")
        if line.strip()
        for pin in [Requirement(line)]
    }
    for key, value in settings().items():
        if key != "requirements" and not key.endswith("_requirements"):
            continue
        for need in map(Requirement, shlex.split(value)):
            pin = pins.get(canonicalize_name(need.name))
            assert pin is not None, f"{need.name} ({key}) has no pin in constraints.txt"
            assert need.specifier.contains(str(pin.specifier).removeprefix("==")), (
                f"{pin} is outside of {need}"
            )
    assert {str(pins["torch"]), str(pins["torchvision"])} == {
        "torch==2.13.0",
        "torchvision==0.28.0",
    }


def test_citation_and_changelog_know_the_version() -> None:
    import yaml

    cited, version = (
        yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8")),
        settings()["version"],
    )
    assert {"cff-version", "message", "title", "authors"} <= cited.keys() and str(
        cited["version"]
    ) == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
