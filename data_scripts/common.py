"""What the fetch scripts share: package clients, resumed and checked downloads, rasterising, and putting a set in place whole."""

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
from pathlib import Path

from tqdm import tqdm

from alignmerge_nb.core import InputError, data_home, progress, sha256_file
from alignmerge_nb.data.archives import safe_extract
from alignmerge_nb.data.datasets import write_manifest

SIDE = 224  # pixels of a rasterised drawing: what the vision encoders take
PLAIN = (".json", ".jsonl", ".lst")  # files that sources give out without an archive around them


@dataclass(frozen=True)
class Package:
    "One archive, where it comes from, and the digest that it must have."

    client: str  # "pip", "npm" or "apt" (the registry's own client), "url" (a public server) or "file" (already on this disk)
    name: str  # the package's name, the address or the path
    version: str = ""
    digest: str = (
        ""  # sha256 as hexadecimal, or "md5:…" where the source states no other; "" is not checked
    )

    @property
    def label(self) -> str:
        "What messages and source.json call it."
        return f"{self.client}:{self.name} {self.version}".strip()


def tool(
    name: str,  # a command
    package: str,  # the Debian package that has it
) -> str:
    "The path of a command, or a `InputError` that names what is missing."
    if path := shutil.which(name):
        return path
    raise InputError(f"no command {name!r}", f"{name} on the PATH", f"Install {package!r}.")


def client_command(
    package: Package,
    folder: Path,  # where the archive shall be
) -> list[str]:
    "The registry client's command that downloads an archive without installing it."
    if package.client == "pip":
        quiet = ["--quiet", "--disable-pip-version-check"]
        return [
            sys.executable,
            "-m",
            "pip",
            "download",
            *quiet,
            "--no-deps",
            "-d",
            str(folder),
            f"{package.name}=={package.version}",
        ]
    if package.client == "npm":
        return [
            tool("npm", "npm"),
            "pack",
            "--silent",
            "--ignore-scripts",
            "--pack-destination",
            str(folder),
            f"{package.name}@{package.version}",
        ]
    return [tool("apt-get", "apt"), "download", "--quiet", f"{package.name}={package.version}"]


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
    found = [path for path in folder.iterdir() if path.is_file()]
    if result.returncode or len(found) != 1:
        why = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()[-1]
        raise InputError(
            f"no {package.label} ({why})",
            "the package",
            f"Try by hand: `{' '.join([Path(command[0]).name, *command[1:]])}`.",
        )
    return check_digest(found[0], package.digest)


def check_digest(
    path: Path,
    digest: str,  # as in `Package`
    remove: bool = False,  # whether a wrong file is removed
) -> Path:
    "`path`; a `InputError` if it is not there or its bytes are not the expected ones."
    if not path.is_file():
        raise InputError(f"no file {path}", "an archive", "Check the path.")
    kind, _, wanted = digest.rpartition(":")
    with open(path, "rb") as file:
        got = hashlib.file_digest(file, kind or "sha256").hexdigest()
    if not wanted or got == wanted:
        return path
    if remove:
        path.unlink()
    raise InputError(
        f"{path.name} with {kind or 'sha256'} {got}",
        f"{wanted}",
        "Run again; if it persists, the source has changed: compare before you trust it.",
    )


def download(
    url: str,
    path: Path,  # the file to make
    digest: str = "",  # as in `Package`
    tries: int = 5,  # connections without a byte of progress
    wait: float = 1,  # seconds before the first retry; doubled each time
) -> Path:
    "Download a file, resuming what an earlier connection or run left; it appears at `path` when it is whole and its digest is right."
    if path.is_file():
        return check_digest(path, digest, remove=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, failed = path.with_name(f"{path.name}.part"), 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if transfer(url, part, before):
                break
            error = "the connection was cut"
        except urllib.error.HTTPError as reply:
            if reply.code == 416 and before:
                break  # nothing is left to send: the digest decides
            if reply.code < 500:
                raise InputError(
                    f"HTTP {reply.code} for {url}",
                    "the file",
                    "The server has moved or withdrawn it: see data_scripts/README.md.",
                ) from reply
            error = f"HTTP {reply.code}"
        except (OSError, http.client.HTTPException) as fault:
            if getattr(fault, "errno", None) == errno.ENOSPC:
                raise InputError(
                    f"no space left for {path}",
                    "free disk",
                    "Free some; what is there will be resumed.",
                ) from fault
            error = str(getattr(fault, "reason", fault))
        failed = 0 if part.exists() and part.stat().st_size > before else failed + 1
        if failed >= tries:
            raise InputError(
                f"no network, or no answer for {url} ({error})",
                "a connection",
                "Run again later; what has arrived is kept.",
            )
        time.sleep(wait * 2 ** max(failed - 1, 0))
    check_digest(part, digest, remove=True)
    os.replace(part, path)
    return path


def transfer(
    url: str,
    part: Path,  # what has arrived so far
    start: int,  # its size
) -> bool:
    "One connection's worth of bytes, added to `part`; whether that was the end of the file."
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=30) as reply:
        if reply.status != 206 or not reply.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        ):
            start = 0  # the server sends it all
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
    keep: Callable[[str], bool] = lambda name: True,  # which files to write
) -> int:
    "Unpack an archive without installing anything, or copy a plain file; return the number of files."
    if archive.suffix in PLAIN:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archive, folder / archive.name)
        return 1
    if archive.suffix != ".deb":
        return safe_extract(archive, folder, keep)
    with subprocess.Popen(
        [tool("dpkg-deb", "dpkg"), "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE
    ) as process:
        return safe_extract(process.stdout, folder, keep)


def is_complete(
    folder: Path,  # a fetched set
    packages: Iterable[Package],
) -> bool:
    "Whether a set was put in place from exactly these packages, with nothing skipped for a tool that is here now."
    try:
        source = json.loads((folder / "source.json").read_text())
    except (OSError, ValueError):
        return False
    return source.get("packages") == {p.label: p.digest for p in packages} and not any(
        map(shutil.which, source.get("missing_tools", ()))
    )


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    "Only one process at a time is in this block; the others wait, and say so."
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{what}: another process fetches it; waiting", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the lock ends with the file, also where the process is killed


def fetch(
    name: str,  # the folder under data/
    packages: tuple[Package, ...],
    build: Callable[
        ..., dict
    ],  # build(folder, *unpacked) fills the folder and returns what source.json shall say
    keep: Callable[[str], bool] = lambda name: True,  # which files of the archives are needed
    home: Path | None = None,  # None: `data_home()`
) -> Path:
    "The set in its place: as it is where it is complete, else fetched, by one process at a time."
    home = Path(home or data_home())
    with locked(home / ".downloads" / f"{name.replace('/', '-')}.lock", name):
        return fetch_alone(name, packages, build, keep, home)


def fetch_alone(
    name: str,  # the folder under data/
    packages: tuple[Package, ...],
    build: Callable[
        ..., dict
    ],  # build(folder, *unpacked) fills the folder and returns what source.json shall say
    keep: Callable[[str], bool],  # which files of the archives are needed
    home: Path,
) -> Path:
    "Download, check, unpack and build a set beside its place; move it there when it is whole."
    start = time.time()
    folder, kept = home / name, home / ".downloads" / name
    if is_complete(folder, packages):
        print(f"{name}: complete")
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(left)  # of a fetch that was killed
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial"
    ) as work:
        unpacked, new, size = [], Path(work, "new"), 0
        for number, package in enumerate(packages):
            archive = download_package(package, Path(work, f"download{number}"), kept)
            size += archive.stat().st_size
            unpacked.append(Path(work, f"unpacked{number}"))
            unpack(archive, unpacked[-1], keep)
            if archive.is_relative_to(work):
                archive.unlink()
        new.mkdir()
        source = {
            "name": name,
            "packages": {p.label: p.digest for p in packages},
            "downloaded_bytes": size,
        } | build(new, *unpacked)
        (new / "source.json").write_text(json.dumps(source, indent=1, ensure_ascii=False))
        if folder.exists():
            folder.rename(Path(work, "old"))
        new.rename(folder)
    shutil.rmtree(kept, ignore_errors=True)
    print(
        f"{name}: {source.get('items', source.get('files'))} items, {size / 1e6:.0f} MB downloaded, {time.time() - start:.0f} s"
    )
    for line in source.get("notes", ()):
        print(f"{name}: {line}")
    return folder


def finish(
    folder: Path,  # the set under construction
    rows: list[dict],  # its manifest
    skipped: dict[str, str] | None = None,  # what was left out, and why
    **more: object,  # further keys of source.json
) -> dict:
    "Write the manifest; return what source.json shall say of it."
    languages = sorted({code for row in rows for code in row["texts"]})
    return {
        "items": write_manifest(folder / "manifest.jsonl", rows),
        "languages": languages,
        "skipped": dict(sorted((skipped or {}).items())),
        "manifest_sha256": sha256_file(folder / "manifest.jsonl"),
    } | more


def rasterise(
    drawings: dict[Path, Path],  # SVG file -> PNG file to make
) -> dict[Path, str]:
    "Draw SVGs with rsvg-convert, their longer side `SIDE` pixels; return those that could not be drawn, and why."
    program = tool("rsvg-convert", "librsvg2-bin")

    def draw(svg: Path) -> str | None:
        drawings[svg].parent.mkdir(parents=True, exist_ok=True)
        command = [
            program,
            "--keep-aspect-ratio",
            "-w",
            str(SIDE),
            "-h",
            str(SIDE),
            "-o",
            str(drawings[svg]),
            str(svg),
        ]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=20
            )  # a sound drawing takes 0.05 s
        except subprocess.TimeoutExpired:
            return "takes over 20 s to draw"
        return (
            None
            if result.returncode == 0 and drawings[svg].exists()
            else f"not drawable: {(result.stderr.strip() or '?').splitlines()[0][-80:]}"
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = dict(zip(drawings, progress(pool.map(draw, drawings), "drawing", len(drawings))))
    return {svg: why for svg, why in wrong.items() if why}


def main(
    name: str,  # the set, for the message
    run: Callable[..., object],
    **options: str,  # option -> its help: `images="…"` is handed to `run` as images=None or its value
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
