"""The documentation site and README.md, made from the notebooks: no Quarto, no pandoc, nothing fetched when a page is read.

    python tools/docs.py site              notebooks -> _proc/site/*.md -> _docs/ (mkdocs, strict)
    python tools/docs.py readme [--check]  nbs/index.ipynb -> README.md

Nothing is imported or executed: the API blocks come from the source of the export cells, the outputs from the notebooks.
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import nbformat
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from api import Symbol, api_block, symbols_of  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, ASSETS = ROOT / "nbs", ROOT / "tools" / "site"
WORK, SITE = ROOT / "_proc", ROOT / "_docs"
KATEX = "0.19.1"  # the version that the pages were looked at with
TIERS = ("full", "cpu")  # the published one first
DOCUMENTS = {
    "ARCHITECTURE.md": "architecture.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "data_scripts/README.md": "data_sources.md",
}

DIRECTIVE = re.compile(r"^#\|\s*([\w-]+:?)[ \t]*(.*)$", re.M)
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
FENCE = re.compile(r"^(```|~~~)", re.M)
INCLUDE = re.compile(r"<!-- include: (\S+) -->")
CALLOUT = re.compile(r"^:{3,}\s*\{\.callout-(\w+)[^}]*\}\s*\n(.*?)\n:{3,}\s*$", re.M | re.S)
ALERT = re.compile(r"^> \[!(\w+)\]\n((?:^>.*\n?)+)", re.M)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
IMAGE_TYPES = {"image/svg+xml": ".svg", "image/png": ".png", "image/jpeg": ".jpg"}


@dataclass(eq=False)
class Page:
    "One page: where it comes from, where it goes, how the navigation calls it."

    source: Path  # a notebook or a Markdown document
    target: str  # under the site's folder: "core.md", "experiments/full/retrieval.md"
    section: tuple[str, ...]  # the path in the navigation, () at the top
    note: str = ""  # a line under the title
    title: str = ""
    symbols: dict[str, Symbol] = field(default_factory=dict)  # what the page documents

    @property
    def written_at(self) -> Path:
        "The file that its relative links were written for: papermill moves a notebook, its links stay."
        return NOTEBOOKS / "experiments" / self.source.name if self.executed else self.source

    @property
    def executed(self) -> bool:
        "Whether it is an experiment: results first, code folded away."
        return bool(self.section) and self.section[0] == "Experiments"


def stem(path: Path) -> str:
    "A notebook's name without its number."
    return re.sub(r"^\d+[a-z]?_", "", path.stem)


FOLDERS = (
    "",
    "data",
    "encoders",
    "transport",
    "flows",
    "aligners",
    "metrics",
    "fusion",
    "merging",
    "paper",
    "lab",
    "lab/experiments",
)  # of the library


def library_notebooks() -> list[Path]:
    "The notebooks that export the library, folder by folder."
    return [
        path for folder in FOLDERS for path in sorted((NOTEBOOKS / folder).glob("[0-9]*.ipynb"))
    ]


def library_page(path: Path) -> Page:
    "The page of a library notebook."
    place = path.relative_to(NOTEBOOKS).parent
    package = ".".join(("alignmerge_nb", *place.parts))
    return Page(
        path,
        (place / f"{stem(path)}.md").as_posix(),
        ("Library", *place.parts),
        f"`from {package} import {stem(path)}` · source: `nbs/{path.relative_to(NOTEBOOKS)}`",
    )


def experiment_pages() -> list[Page]:
    "A page per executed experiment and tier; the notebook itself where it was not executed yet."
    pages = []
    for tier in TIERS:
        for path in sorted((ROOT / "paper" / "executed" / tier).glob("*.ipynb")):
            note = f"Executed by papermill in tier `{tier}` · source: `nbs/experiments/{path.name}`"
            pages.append(
                Page(
                    path,
                    f"experiments/{tier}/{stem(path)}.md",
                    ("Experiments", f"Tier {tier}"),
                    note,
                )
            )
    done = {page.source.name for page in pages}
    for path in sorted((NOTEBOOKS / "experiments").glob("*.ipynb")):
        if path.name not in done:
            pages.append(
                Page(
                    path,
                    f"experiments/{stem(path)}.md",
                    ("Experiments",),
                    f"Smoke-size parameters · source: `nbs/experiments/{path.name}`",
                )
            )
    return pages


def all_pages() -> list[Page]:
    "Every page of the site, in the order of the navigation."
    pages = [
        Page(NOTEBOOKS / "index.ipynb", "index.md", ()),
        *map(library_page, library_notebooks()),
    ]
    pages += [
        Page(path, f"tutorials/{stem(path)}.md", ("Tutorials",))
        for path in sorted((NOTEBOOKS / "tutorials").glob("*.ipynb"))
    ]
    pages += experiment_pages()
    return pages + [
        Page(ROOT / source, target, ("Project",))
        for source, target in DOCUMENTS.items()
        if (ROOT / source).exists()
    ]


def directives(source: str) -> dict[str, str]:
    "The `#| name value` lines of a cell."
    return {name.rstrip(":"): value.strip() for name, value in DIRECTIVE.findall(source)}


# Text of Markdown cells


def outside_fences(text: str, change) -> str:
    "`change(part)` applied to everything but fenced code."
    out, block, fenced = [], [], False
    for line in [*text.split("\n"), None]:
        if line is None or FENCE.match(line.lstrip()):
            if not fenced and block:
                out.append(change("\n".join(block)))
            elif block:
                out += ["\n".join(block)]
            block = []
            if line is not None:
                out.append(line)
                fenced = not fenced
        else:
            block.append(line)
    return "\n".join(out)


def callouts(text: str) -> str:
    "Quarto and GitHub call-outs as admonitions."

    def admonition(kind: str, lines: list[str]) -> str:
        title = f' "{lines.pop(0).lstrip("# ")}"' if lines and lines[0].startswith("#") else ""
        return f"!!! {kind.lower()}{title}\n\n" + "\n".join(f"    {line}" for line in lines) + "\n"

    text = CALLOUT.sub(lambda match: admonition(match[1], match[2].strip("\n").split("\n")), text)
    return ALERT.sub(
        lambda match: admonition(
            match[1],
            [
                line.removeprefix(">").removeprefix(" ")
                for line in match[2].rstrip("\n").split("\n")
            ],
        ),
        text,
    )


def commonmark(text: str) -> str:
    "What notebooks may write and Python-Markdown reads otherwise: lists and formulas without blank lines, nesting by two spaces."
    lines, out = text.split("\n"), []
    item = re.compile(r"^( *)([-*+]|\d+[.)]) ")
    for line in lines:
        match, before = item.match(line), out[-1] if out else ""
        if match and before.strip() and not item.match(before) and not before.startswith(" "):
            out.append("")
        if match and len(match[1]) in (2, 3):
            line = "    " + line.lstrip()
        if line.startswith("$$") and before.strip() and not inside_formula(out):
            out.append("")
        out.append(line)
        if line.rstrip().endswith("$$") and not inside_formula(out):
            out.append("")
    return "\n".join(out)


def inside_formula(lines: list[str]) -> bool:
    "Whether a display formula is open at the end of `lines`."
    return sum(line.count("$$") for line in lines) % 2 == 1


def cross_links(text: str, page: Page, home: dict[str, Page]) -> str:
    "`` `Name` `` as a link to where Name is documented, outside of headings and links."

    def link(match: re.Match) -> str:
        if re.fullmatch("[a-z]+", match[1]):
            return match[0]  # as likely a parameter or a plain word; `name()` is linked
        name = match[1].removesuffix("()").removeprefix("alignmerge_nb.")
        name = name if name in home else name.partition(".")[2]
        there = home.get(name)
        if there is None:
            return match[0]
        path = (
            ""
            if there is page
            else os.path.relpath(there.target, PurePosixPath(page.target).parent)
        )
        return f"[`{match[1]}`]({path}#{name})"

    pattern = re.compile(r"(?<![\[`\w])`([A-Za-z_][\w.]*(?:\(\))?)`(?![\]`])")
    return "\n".join(
        line if line.startswith("#") else pattern.sub(link, line) for line in text.split("\n")
    )


def local_links(text: str, source: Path, place) -> str:
    "Relative links, rewritten by `place(path, anchor)`; None leaves the bare text."

    def link(match: re.Match) -> str:
        address, _, anchor = match[2].partition("#")
        if not address or re.match(r"[a-z]+:", address):
            return match[0]
        there = place((source.parent / address).resolve(), anchor)
        return match[1] if there is None else f"[{match[1]}]({there})"

    return LINK.sub(link, text)


def site_place(page: Page, pages: list[Page]):
    "Where a file of the repository is on the site, seen from `page`."
    known = {other.source.resolve(): other.target for other in reversed(pages)}
    for other in pages:
        known.setdefault(
            other.written_at.resolve(), other.target
        )  # an experiment's notebook: its executed page

    def place(path: Path, anchor: str) -> str | None:
        target = known.get(path)
        if target is None:
            return None
        return os.path.relpath(target, PurePosixPath(page.target).parent) + (
            f"#{anchor}" if anchor else ""
        )

    return place


def notebook_table() -> str:
    "A Markdown table: a line for each folder of the library, and one for each other notebook, with the sentence under its title."
    rows = ["| Notebook | What it holds |", "|---|---|"]
    for folder in FOLDERS[1:]:
        inside = sorted((NOTEBOOKS / folder).glob("[0-9]*.ipynb"))
        about = ast.get_docstring(
            ast.parse((ROOT / "alignmerge_nb" / folder / "__init__.py").read_text())
        )
        rows.append(
            f"| [{folder}]({inside[0].relative_to(NOTEBOOKS)}), {len(inside)} notebook{'s' * (len(inside) > 1)} | {about} |"
        )
    for path in [
        *sorted(NOTEBOOKS.glob("[0-9]*.ipynb")),
        *sorted(NOTEBOOKS.glob("experiments/*.ipynb")),
        *sorted(NOTEBOOKS.glob("tutorials/*.ipynb")),
    ]:
        title, description = heading(nbformat.read(path, 4))
        rows.append(f"| [{title or stem(path)}]({path.relative_to(NOTEBOOKS)}) | {description} |")
    return "\n".join(rows)


def heading(notebook) -> tuple[str, str]:
    "Title and description of a notebook: its first `# …` line and the `> …` under it."
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            title, _, rest = cell.source.partition("\n")
            quote = re.match(r"\s*((?:>.*\n?)+)", rest)
            return title[2:].strip(), " ".join(
                line.lstrip("> ") for line in quote[1].strip().split("\n")
            ) if quote else ""
    return "", ""


def filled(text: str, source: Path) -> str:
    "The generated parts of a Markdown cell: the notebook table and included files; '' if an included file is not there yet."
    text = (
        text.replace("<!-- notebooks -->", notebook_table())
        if "<!-- notebooks -->" in text
        else text
    )
    for name in INCLUDE.findall(text):
        path = source.parent / name
        if not path.exists():
            return ""
        text = text.replace(f"<!-- include: {name} -->", path.read_text(encoding="utf-8").strip())
    return text


# Cells


def clean(text: str) -> str:
    "Output text without colour codes, carriage returns and this machine's paths."
    text = ANSI.sub("", "\n".join(line.rpartition("\r")[2] for line in text.split("\n")))
    return (
        text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".").replace(str(Path.home()), "~")
    )


def fenced(text: str, language: str, *classes: str) -> str:
    "A code block whose fence is longer than any inside."
    ticks = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`{3,}", text)), 3)
    classes += ("one-line",) if "cell-output" in classes and "\n" not in text.strip() else ()
    return f"{ticks} {{ .{' .'.join([language, *classes])} }}\n{text.rstrip()}\n{ticks}"


def html_output(text: str) -> str:
    "HTML of a cell without styles and scripts of its own; a data frame becomes a table like the others, numbers to the right."
    text = re.sub(r"<(style|script).*?</\1>", "", text, flags=re.S).replace("\n\n", "\n")
    text = re.sub(r'<table border="1" class="dataframe">', "<table>", text).replace(
        ' style="text-align: right;"', ""
    )
    number = r"[-+−]?[\d.,]+(?:e[-+]?\d+)?\s?%?"
    first = re.findall(
        r"<(?:td|th)>(.*?)</", (re.findall(r"<tbody>\s*<tr>(.*?)</tr>", text, re.S) or [""])[0]
    )
    head = iter(' align="right"' if re.fullmatch(number, value) else "" for value in first)
    text = re.sub(
        r"<thead>.*?</thead>",
        lambda part: re.sub(r"<th>", lambda _: f"<th{next(head, '')}>", part[0]),
        text,
        flags=re.S,
    )
    return re.sub(rf"<td>({number}|NaN)</td>", r'<td align="right">\1</td>', text)


def output_markdown(output, folder: Path, name: str, alt: str) -> str:
    "One output as Markdown; images are written into `folder`. Progress bars and warnings (stderr) are left out."
    if output.output_type == "stream":
        return (
            fenced(clean(output.text), "text", "cell-output")
            if output.name == "stdout" and output.text.strip()
            else ""
        )
    if output.output_type == "error":
        return fenced(clean(f"{output.ename}: {output.evalue}"), "text", "cell-output")
    data = output.data
    for kind, ending in IMAGE_TYPES.items():
        if kind in data:
            body = data[kind]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}{ending}").write_bytes(
                body.encode() if ending == ".svg" else base64.b64decode(body)
            )
            return f"![{alt}]({folder.name}/{name}{ending}){{ .figure loading=lazy }}"
    if "text/markdown" in data:
        return clean(data["text/markdown"])
    if "text/html" in data:
        return html_output(clean(data["text/html"]))
    if "text/latex" in data:
        return data["text/latex"]
    return (
        fenced(clean(data["text/plain"]), "text", "cell-output")
        if data.get("text/plain", "").strip()
        else ""
    )


def indented(text: str) -> str:
    "Four spaces in front of every line, for the body of an admonition."
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))


def code_markdown(cell, page: Page, folder: Path, number: int, alt: str) -> list[str]:
    "A code cell and its outputs; experiments fold the code away."
    told, tags = directives(cell.source), cell.metadata.get("tags", [])
    if {"hide", "default_exp", "exporti"} & told.keys() or "remove-cell" in tags:
        return []
    if "export" in told or "exports" in told:
        return [api_block(symbol, "exports" in told) for symbol in symbols_of(cell.source)]
    if page.executed and "parameters" in tags and page.note.startswith("Executed"):
        return []  # papermill's own cell says what ran
    source, parts = DIRECTIVE.sub("", cell.source).strip("\n"), []
    source = re.sub(r"^# Parameters\n", "", source) if "injected-parameters" in tags else source
    if source.strip() and told.get("echo") != "false" and "hide_input" not in told:
        block = fenced(source, "python")
        title = "Parameters" if {"parameters", "injected-parameters"} & set(tags) else "Code"
        parts.append(f'??? abstract "{title}"\n\n{indented(block)}\n' if page.executed else block)
    if told.get("output") != "false" and "hide_output" not in told:
        parts += [
            output_markdown(output, folder, f"{number}_{k}", alt)
            for k, output in enumerate(cell.get("outputs", []))
        ]
    return [part for part in parts if part]


def notebook_markdown(page: Page, pages: list[Page], home: dict[str, Page], out: Path) -> str:
    "A notebook as one Markdown page."
    notebook, place = nbformat.read(page.source, 4), site_place(page, pages)
    folder = (out / page.target).with_name(f"{stem(page.source)}_files")
    page.title, description = heading(notebook)
    parts = (
        [f"# {page.title}"]
        + ([f"{description}\n{{ .lead }}"] if description else [])
        + ([f"{page.note}\n{{ .origin }}"] if page.note else [])
    )
    section, titled = page.title, False
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            parts += [
                outside_fences(part, lambda text: cross_links(text, page, home))
                for part in code_markdown(cell, page, folder, number, f"Figure: {section}")
            ]
        if cell.cell_type != "markdown":
            continue
        text = callouts(filled(cell.source, page.written_at))
        if not titled and text.startswith("# "):
            text, titled = re.sub(r"^# .*\n?\s*(?:(?:>.*\n?)+)?", "", text), True
        section = next(
            (line.lstrip("# ") for line in reversed(text.split("\n")) if line.startswith("#")),
            section,
        ).replace("`", "")
        parts.append(
            outside_fences(
                text,
                lambda part: cross_links(
                    local_links(commonmark(part), page.written_at, place), page, home
                ),
            )
        )
    return ("" if page.section else "---\nhide: [navigation]\n---\n\n") + "\n\n".join(parts) + "\n"


def document_markdown(page: Page, pages: list[Page], home: dict[str, Page]) -> str:
    "A Markdown document of the repository as a page."
    text, place = page.source.read_text(encoding="utf-8"), site_place(page, pages)
    page.title = re.search(r"^# (.*)$", text, re.M)[1]
    return outside_fences(
        text,
        lambda part: cross_links(
            local_links(commonmark(callouts(part)), page.source, place), page, home
        ),
    )


# The site


def katex(out: Path) -> bool:
    "KaTeX's files in `out`/katex, from the npm package (kept in .cache/) or Debian's libjs-katex; whether they are there."
    kept, debian = ROOT / ".cache" / f"katex-{KATEX}", Path("/usr/share/javascript/katex")
    if not kept.exists() and shutil.which("npm"):
        with tempfile.TemporaryDirectory() as folder:
            packed = subprocess.run(
                ["npm", "pack", "--silent", "--ignore-scripts", f"katex@{KATEX}"],
                cwd=folder,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
            if packed.returncode == 0:
                with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                    archive.extractall(folder, filter="data")
                kept.parent.mkdir(exist_ok=True)
                shutil.copytree(Path(folder) / "package" / "dist", kept)
    source = kept if kept.exists() else debian
    if not source.exists():
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


def navigation(pages: list[Page]) -> list:
    "The nested `nav` of mkdocs.yml."
    nav: list = []
    for page in pages:
        level = nav
        for name in page.section:
            there = next((entry[name] for entry in level if name in entry), None)
            if there is None:
                level.append({name: (there := [])})
            level = there
        level.append({page.title.partition(":")[0] if page.section else "Home": page.target})
    return nav


def problems(text: str) -> list[str]:
    "What must not be on a page: colour codes, raw notebook json, absolute paths of the machine that built it."
    marks = {
        "an ANSI code": r"\x1b",
        "raw notebook json": r'"cell_type":|"nbformat":',
        "a figure's repr": r"<Figure size ",
        "an absolute path": rf"{re.escape(str(ROOT))}|(?<![\w.~])/(?:home|root|tmp|work)/\w",
    }
    return [what for what, pattern in marks.items() if re.search(pattern, text)]


def write_pages(out: Path) -> list[Page]:
    "Every page as Markdown in `out`; an error that lists the pages with something on them that must not be."
    pages, wrong = all_pages(), []
    for page in pages:
        if page.section[:1] != ("Library",):
            continue
        for cell in nbformat.read(page.source, 4).cells:
            if cell.cell_type == "code" and {"export", "exports"} & directives(cell.source).keys():
                page.symbols |= {
                    name: symbol for symbol in symbols_of(cell.source) for name in symbol.names()
                }
    home = {name: page for page in reversed(pages) for name in page.symbols}
    for page in pages:
        text = (
            document_markdown(page, pages, home)
            if page.source.suffix == ".md"
            else notebook_markdown(
                page, pages, {**home, **{name: page for name in page.symbols}}, out
            )
        )
        wrong += [f"{page.source.relative_to(ROOT)}: {what}" for what in problems(text)]
        (out / page.target).parent.mkdir(parents=True, exist_ok=True)
        (out / page.target).write_text(text, encoding="utf-8")
    if wrong:
        sys.exit("docs: pages with something that must not be there:\n  " + "\n  ".join(wrong))
    return [*pages, write_gallery(pages, out)]


def write_gallery(pages: list[Page], out: Path) -> Page:
    "A page with every figure that the experiments wrote, each linked to the page that made it."
    lines = [
        "# Gallery",
        "> Every figure of the experiments, the published tier first. Each leads to the page that made it, with its rows, tables and code.",
    ]
    for tier in TIERS:
        makers = {
            page: page.source.read_text()
            for page in pages
            if page.target.startswith(f"experiments/{tier}/")
        }
        for path in sorted((ROOT / "paper" / "figures" / tier).glob("*.png")):
            written = (
                f'\\"{path.stem}\\"',
                f'\\"{path.stem.rpartition("_")[0]}_{{',
            )  # by name, or by the part before a data set's
            maker = next(
                (page for page, text in makers.items() if any(name in text for name in written)),
                None,
            )
            if maker is None:
                sys.exit(
                    f"docs: no experiment of tier {tier} makes {path.relative_to(ROOT)}; delete it, or run the experiment"
                )
            place = f"gallery/{tier}/{path.name}"
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, out / place)
            lines += [
                f"## {path.stem.replace('_', ' ')}, tier {tier}",
                f"[![{maker.title}]({place})]({maker.target})",
                f"[{maker.title}]({maker.target})",
            ]
    (out / "gallery.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return Page(ROOT / "paper" / "figures", "gallery.md", ("Experiments",), title="Gallery")


def inputs_digest() -> str:
    "A digest of everything that the site is made from."
    digest = hashlib.sha256()
    patterns = (
        "nbs/**/*.ipynb",
        "paper/executed/**/*.ipynb",
        "paper/tables/**/*.md",
        "paper/figures/**/*.png",
        "tools/**/*.py",
        "tools/site/*",
        "mkdocs.yml",
        *DOCUMENTS,
    )
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        digest.update(
            f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest()
        )
    return digest.hexdigest()


def build_site() -> None:
    "Build _docs/, unless it was built from exactly these inputs."
    stamp, digest = SITE / ".inputs", inputs_digest()
    if stamp.exists() and stamp.read_text() == digest:
        return print("docs: _docs/ is up to date")
    out = WORK / "site"
    shutil.rmtree(WORK, ignore_errors=True)
    out.mkdir(parents=True)
    pages = write_pages(out)
    for path in ASSETS.iterdir():
        shutil.copy(path, out)
    settings = {
        "INHERIT": "../mkdocs.yml",
        "docs_dir": "site",
        "site_dir": "../_docs",
        "nav": navigation(pages),
    }
    if katex(out):
        settings |= {
            "extra_css": ["katex/katex.min.css", "extra.css"],
            "extra_javascript": ["katex/katex.min.js", "katex/auto-render.min.js", "katex-init.js"],
        }
    (WORK / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "-f",
            str(WORK / "mkdocs.yml"),
        ],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    if built.returncode:
        sys.exit(built.returncode)
    stamp.write_text(digest)
    print(f"docs: {len(pages)} pages in _docs/; read them with `python -m http.server -d _docs`")


def readme() -> str:
    "The text of README.md."
    source, parts = NOTEBOOKS / "index.ipynb", []
    for cell in nbformat.read(source, 4).cells:
        told = directives(cell.source)
        if cell.cell_type == "markdown":
            text = filled(cell.source, source)
            parts.append(
                outside_fences(
                    text,
                    lambda part: local_links(
                        part,
                        source,
                        lambda path, anchor: (
                            os.path.relpath(path, ROOT) + (f"#{anchor}" if anchor else "")
                        ),
                    ),
                )
            )
        elif cell.cell_type == "code" and not {"hide", "default_exp", "export"} & told.keys():
            parts.append(f"```python\n{DIRECTIVE.sub('', cell.source).strip()}\n```")
            outputs = [
                clean(output.get("text") or output.get("data", {}).get("text/plain", ""))
                for output in cell.outputs
                if output.get("name") != "stderr"
            ]
            parts += [f"```text\n{text.rstrip()}\n```" for text in outputs if text.strip()]
    return (
        "<!-- generated from nbs/index.ipynb by tools/docs.py -->\n\n"
        + "\n\n".join(part.strip() for part in parts if part.strip())
        + "\n"
    )


def main() -> None:
    "The command line."
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("site", "readme"))
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing; fail if README.md is not what the notebook gives",
    )
    asked, target = parser.parse_args(), ROOT / "README.md"
    if asked.what == "site":
        return build_site()
    text, there = readme(), target.read_text(encoding="utf-8") if target.exists() else ""
    if asked.check and text != there:
        sys.exit("docs: README.md is not what nbs/index.ipynb gives; run `make lib`.")
    if text != there:
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
