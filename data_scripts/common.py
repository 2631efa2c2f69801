"""What the fetch scripts share: package clients, checked downloads, rasterising, and putting a set in place whole."""
from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from alignmerge_nb.core import BadInput, atomic_path, data_home, progress, sha256_file
from alignmerge_nb.data import safe_extract, write_manifest

SIDE = 224  # pixels of a rasterised drawing: what the vision encoders take


@dataclass(frozen=True)
class Package:
    "One release in an ordinary package registry, and the sha256 that its archive must have."
    client: str  # "pip", "npm" or "apt"
    name: str
    version: str
    sha256: str

    @property
    def label(self) -> str:
        "What messages and source.json call it."
        return f"{self.client}:{self.name} {self.version}"


def tool(
    name: str,  # a command
    package: str,  # the Debian package that has it
) -> str:
    "The path of a command, or a `BadInput` that names what is missing."
    if path := shutil.which(name): return path
    raise BadInput(f"no command {name!r}", f"{name} on the PATH", f"Install {package!r}.")


def client_command(
    package: Package,
    folder: Path,  # where the archive shall be
) -> list[str]:
    "The registry client's command that downloads an archive without installing it."
    if package.client == "pip":
        return [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "-d", str(folder), f"{package.name}=={package.version}"]
    if package.client == "npm":
        return [tool("npm", "npm"), "pack", "--silent", "--pack-destination", str(folder), f"{package.name}@{package.version}"]
    return [tool("apt-get", "apt"), "download", "--quiet", f"{package.name}={package.version}"]


def download_package(
    package: Package,
    folder: Path,  # an empty folder
) -> Path:
    "The archive of a package, downloaded by its own client and checked against its sha256."
    folder.mkdir(parents=True)
    command = client_command(package, folder)
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode and package.client == "apt":  # the package lists may be empty or old
        subprocess.run([command[0], "update", "--quiet"], capture_output=True)
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = [path for path in folder.iterdir() if path.is_file()]
    if result.returncode or len(found) != 1:
        why = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()[-1]
        raise BadInput(f"no {package.label} ({why})", "the package", f"Try by hand: `{' '.join([Path(command[0]).name, *command[1:]])}`.")
    check_sha256(found[0], package.sha256)
    return found[0]


def check_sha256(
    path: Path,
    sha256: str,  # hexadecimal
) -> None:
    "A `BadInput`, and no file left, if the bytes are not the expected ones."
    if (got := sha256_file(path)) == sha256: return
    path.unlink()
    raise BadInput(f"{path.name} with sha256 {got}", f"sha256 {sha256}", "Run again; if it persists, the source has changed: compare before you trust it.")


def unpack(
    archive: Path,  # .whl, .zip, .tar…, .tgz or .deb
    folder: Path,
    keep: Callable[[str], bool] = lambda name: True,  # which files to write
) -> int:
    "Unpack an archive without installing anything; return the number of files."
    if archive.suffix != ".deb": return safe_extract(archive, folder, keep)
    with subprocess.Popen([tool("dpkg-deb", "dpkg"), "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as process:
        return safe_extract(process.stdout, folder, keep)


def is_complete(
    folder: Path,  # a fetched set
    packages: Iterable[Package],
) -> bool:
    "Whether a set was put in place from exactly these packages, with nothing skipped for a tool that is here now."
    try: source = json.loads((folder / "source.json").read_text())
    except (OSError, ValueError): return False
    return source.get("packages") == {p.label: p.sha256 for p in packages} and not any(map(shutil.which, source.get("missing_tools", ())))


def fetch(
    name: str,  # the folder under data/
    packages: tuple[Package, ...],
    build: Callable[..., dict],  # build(folder, *unpacked) fills the folder and returns what source.json shall say
    keep: Callable[[str], bool] = lambda name: True,  # which files of the archives are needed
    home: Path | None = None,  # None: `data_home()`
) -> Path:
    "Download, check, unpack and build a set beside its place; move it there when it is whole."
    folder, start = Path(home or data_home()) / name, time.time()
    if is_complete(folder, packages):
        print(f"{name}: complete")
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*.partial"): shutil.rmtree(left)  # of a fetch that was killed
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial") as work:
        unpacked, new, size = [], Path(work, "new"), 0
        for number, package in enumerate(packages):
            archive = download_package(package, Path(work, f"download{number}"))
            size += archive.stat().st_size
            unpacked.append(Path(work, f"unpacked{number}"))
            unpack(archive, unpacked[-1], keep)
            archive.unlink()
        new.mkdir()
        source = {"name": name, "packages": {p.label: p.sha256 for p in packages}, "downloaded_bytes": size} | build(new, *unpacked)
        (new / "source.json").write_text(json.dumps(source, indent=1, ensure_ascii=False))
        if folder.exists(): folder.rename(Path(work, "old"))
        new.rename(folder)
    print(f"{name}: {source.get('items', source.get('files'))} items, {size / 1e6:.0f} MB downloaded, {time.time() - start:.0f} s")
    for line in source.get("notes", ()): print(f"{name}: {line}")
    return folder


def finish(
    folder: Path,  # the set under construction
    rows: list[dict],  # its manifest
    skipped: dict[str, str] | None = None,  # what was left out, and why
    **more: object,  # further keys of source.json
) -> dict:
    "Write the manifest; return what source.json shall say of it."
    languages = sorted({code for row in rows for code in row["texts"]})
    return {"items": write_manifest(folder / "manifest.jsonl", rows), "languages": languages, "skipped": dict(sorted((skipped or {}).items())),
            "manifest_sha256": sha256_file(folder / "manifest.jsonl")} | more


def rasterise(
    drawings: dict[Path, Path],  # SVG file -> PNG file to make
) -> dict[Path, str]:
    "Draw SVGs with rsvg-convert, their longer side `SIDE` pixels; return those that could not be drawn, and why."
    program = tool("rsvg-convert", "librsvg2-bin")

    def draw(svg: Path) -> str | None:
        drawings[svg].parent.mkdir(parents=True, exist_ok=True)
        command = [program, "--keep-aspect-ratio", "-w", str(SIDE), "-h", str(SIDE), "-o", str(drawings[svg]), str(svg)]
        try: result = subprocess.run(command, capture_output=True, text=True, timeout=20)  # a sound drawing takes 0.05 s
        except subprocess.TimeoutExpired: return "takes over 20 s to draw"
        return None if result.returncode == 0 and drawings[svg].exists() else f"not drawable: {(result.stderr.strip() or '?').splitlines()[0][-80:]}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = dict(zip(drawings, progress(pool.map(draw, drawings), "drawing", len(drawings))))
    return {svg: why for svg, why in wrong.items() if why}


def main(
    name: str,  # the set, for the message
    run: Callable[[], object],
) -> None:
    "Run a fetch script: an error that the user can fix is one line and exit code 1."
    argparse.ArgumentParser(description=sys.modules["__main__"].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try: run()
    except BadInput as error: sys.exit(f"{name}: {error}")
