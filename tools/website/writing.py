"Pages as Markdown files."

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat

from .api import symbols_of
from .cells import code_markdown, directives
from .markdown import (
    callouts,
    commonmark,
    cross_links,
    filled,
    heading,
    local_links,
    outside_fences,
    site_place,
)
from .pages import ROOT, TIERS, Page, all_pages, stem

TITLE = re.compile(r"^# .*\n?\s*(?:(?:>.*\n?)+)?")  # with the description under it
UNWANTED = {
    "an ANSI code": r"\x1b",
    "raw notebook json": r'"cell_type":|"nbformat":',
    "a figure's repr": r"<Figure size ",
    "an absolute path": rf"{re.escape(str(ROOT))}|(?<![\w.~])/(?:home|root|tmp|work)/\w",
}


def write_pages(out: Path) -> list[Page]:
    "Every page as Markdown in `out`; the program ends where one has something unwanted on it."
    pages = all_pages()
    for page in pages:
        if page.section[:1] == ("Library",):
            page.symbols = page_symbols(page)
    home = {name: page for page in reversed(pages) for name in page.symbols}
    wrong = []
    for page in pages:
        text = page_markdown(page, pages, home, out)
        wrong += [f"{page.source.relative_to(ROOT)}: {what}" for what in problems(text)]
        path = out / page.target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if wrong:
        sys.exit("docs: pages with something that must not be there:\n  " + "\n  ".join(wrong))
    return [*pages, write_gallery(pages, out)]


def page_symbols(page: Page) -> dict:
    "What the export cells of a page define."
    cells = nbformat.read(page.source, 4).cells
    exported = [
        cell.source
        for cell in cells
        if cell.cell_type == "code" and {"export", "exports"} & directives(cell.source).keys()
    ]
    symbols = [symbol for source in exported for symbol in symbols_of(source)]
    return {name: symbol for symbol in symbols for name in symbol.names()}


def problems(text: str) -> list[str]:
    "What must not be on a page: colour codes, raw notebooks, paths of the machine that built it."
    return [what for what, pattern in UNWANTED.items() if re.search(pattern, text)]


def page_markdown(page: Page, pages: Sequence[Page], home: Mapping[str, Page], out: Path) -> str:
    "A page as Markdown."
    if page.source.suffix == ".md":
        return document_markdown(page, pages, home)
    own = dict.fromkeys(page.symbols, page)
    return notebook_markdown(page, pages, {**home, **own}, out)


def document_markdown(page: Page, pages: Sequence[Page], home: Mapping[str, Page]) -> str:
    "A Markdown document of the repository as a page."
    text = page.source.read_text(encoding="utf-8")
    page.title = re.search(r"^# (.*)$", text, re.M)[1]
    place = site_place(page, pages)

    def linked(part: str) -> str:
        part = commonmark(callouts(part))
        return cross_links(local_links(part, page.source, place), page, home)

    return outside_fences(text, linked)


def notebook_markdown(
    page: Page, pages: Sequence[Page], home: Mapping[str, Page], out: Path
) -> str:
    "A notebook as one Markdown page."
    notebook = nbformat.read(page.source, 4)
    page.title, description = heading(notebook)
    folder = (out / page.target).with_name(f"{stem(page.source)}_files")
    place = site_place(page, pages)

    def linked_code(part: str) -> str:
        return cross_links(part, page, home)

    def linked_text(part: str) -> str:
        part = local_links(commonmark(part), page.written_at, place)
        return cross_links(part, page, home)

    parts = page_head(page, description)
    section = page.title
    has_title = False
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            blocks = code_markdown(cell, page, folder, number, f"Figure: {section}")
            parts += [outside_fences(block, linked_code) for block in blocks]
        elif cell.cell_type == "markdown":
            text = callouts(filled(cell.source, page.written_at))
            if not has_title and text.startswith("# "):
                text = TITLE.sub("", text)
                has_title = True
            section = last_heading(text) or section
            parts.append(outside_fences(text, linked_text))
    front_matter = "" if page.section else "---\nhide: [navigation]\n---\n\n"
    return front_matter + "\n\n".join(parts) + "\n"


def page_head(page: Page, description: str) -> list[str]:
    "Title, description and note."
    parts = [f"# {page.title}"]
    if description:
        parts.append(f"{description}\n{{ .lead }}")
    if page.note:
        parts.append(f"{page.note}\n{{ .origin }}")
    return parts


def last_heading(text: str) -> str:
    "The last heading of a text, without code marks; '' where there is none."
    headings = [line for line in text.split("\n") if line.startswith("#")]
    return headings[-1].lstrip("# ").replace("`", "") if headings else ""


# The gallery


def write_gallery(pages: Sequence[Page], out: Path) -> Page:
    "A page with every figure that the experiments wrote, each linked to the page that made it."
    lines = [
        "# Gallery",
        "> Every figure of the experiments, the published tier first. Each leads to the page "
        "that made it, with its rows, tables and code.",
    ]
    for tier in TIERS:
        own_pages = [page for page in pages if page.target.startswith(f"experiments/{tier}/")]
        texts = {page: page.source.read_text() for page in own_pages}
        for path in sorted((ROOT / "paper" / "figures" / tier).glob("*.png")):
            maker = maker_of(path, texts)
            copy = f"gallery/{tier}/{path.name}"
            (out / copy).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, out / copy)
            lines += [
                f"## {path.stem.replace('_', ' ')}, tier {tier}",
                f"[![{maker.title}]({copy})]({maker.target})",
                f"[{maker.title}]({maker.target})",
            ]
    (out / "gallery.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return Page(ROOT / "paper" / "figures", "gallery.md", ("Experiments",), title="Gallery")


def maker_of(path: Path, texts: Mapping[Page, str]) -> Page:
    "The page whose code names a figure: as a whole, or by the part before a data set's name."
    prefix = path.stem.rpartition("_")[0]
    written = (f'\\"{path.stem}\\"', f'\\"{prefix}_{{')
    for page, text in texts.items():
        if any(name in text for name in written):
            return page
    sys.exit(
        f"docs: no experiment of its tier makes {path.relative_to(ROOT)}; "
        "delete it, or run the experiment"
    )
