"The site: pages, assets and formulas, built by mkdocs."

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

from .pages import DOCUMENTS, ROOT, Page, navigation
from .writing import write_pages

ASSETS = ROOT / "tools" / "site"
WORK = ROOT / "_proc"
SITE = ROOT / "_docs"
KATEX = "0.19.1"  # the version that the pages were looked at with
DEBIAN_KATEX = Path("/usr/share/javascript/katex")
INPUTS = (
    "nbs/**/*.ipynb",
    "paper/executed/**/*.ipynb",
    "paper/tables/**/*.md",
    "paper/figures/**/*.png",
    "tools/**/*.py",
    "tools/site/*",
    "mkdocs.yml",
    *DOCUMENTS,
)


def build_site() -> None:
    "Build _docs/, unless it was built from exactly these inputs."
    stamp = SITE / ".inputs"
    digest = inputs_digest()
    if stamp.exists() and stamp.read_text() == digest:
        print("docs: _docs/ is up to date")
        return
    out = WORK / "site"
    shutil.rmtree(WORK, ignore_errors=True)
    out.mkdir(parents=True)
    pages = write_pages(out)
    for path in ASSETS.iterdir():
        shutil.copy(path, out)
    settings = site_settings(pages, has_katex=copy_katex(out))
    path = WORK / "mkdocs.yml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    words = ["mkdocs", "build", "--strict", "--quiet", "-f", str(path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run([sys.executable, "-m", *words], env=environment)
    if built.returncode:
        sys.exit(built.returncode)
    stamp.write_text(digest)
    print(f"docs: {len(pages)} pages in _docs/; read them with `python -m http.server -d _docs`")


def inputs_digest() -> str:
    "A digest of everything that the site is made from."
    digest = hashlib.sha256()
    for path in sorted({path for pattern in INPUTS for path in ROOT.glob(pattern)}):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def site_settings(pages: list[Page], has_katex: bool) -> dict:
    "The settings of mkdocs."
    settings = {
        "INHERIT": "../mkdocs.yml",
        "docs_dir": "site",
        "site_dir": "../_docs",
        "nav": navigation(pages),
    }
    if has_katex:
        settings["extra_css"] = ["katex/katex.min.css", "extra.css"]
        settings["extra_javascript"] = [
            "katex/katex.min.js",
            "katex/auto-render.min.js",
            "katex-init.js",
        ]
    return settings


def copy_katex(out: Path) -> bool:
    "Copy KaTeX to `out`/katex; whether it is there."
    source = katex_folder()
    if source is None:
        print(
            "docs: neither npm nor Debian's libjs-katex gave KaTeX: formulas stay LaTeX source.",
            file=sys.stderr,
        )
        return False
    (out / "katex" / "fonts").mkdir(parents=True)
    for name in ("katex.min.js", "katex.min.css", "contrib/auto-render.min.js"):
        shutil.copy(source / name, out / "katex")
    for font in (source / "fonts").glob("*.woff2"):
        shutil.copy(font, out / "katex" / "fonts")
    return True


def katex_folder() -> Path | None:
    "KaTeX's files: from the npm package, kept in .cache/, or Debian's; None where neither is."
    cached = ROOT / ".cache" / f"katex-{KATEX}"
    if not cached.exists() and shutil.which("npm"):
        download_katex(cached)
    return next((folder for folder in (cached, DEBIAN_KATEX) if folder.exists()), None)


def download_katex(target: Path) -> None:
    "Unpack the npm package of KaTeX, where npm delivers it."
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["npm", "pack", "--silent", "--ignore-scripts", f"katex@{KATEX}"],
            cwd=folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if packed.returncode:
            return
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(Path(folder) / "package" / "dist", target)
