"Text of Markdown cells, as the site's Markdown wants it: call-outs, lists, formulas, links."

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import nbformat

from .pages import FOLDERS, NOTEBOOKS, ROOT, Page, stem

FENCE = re.compile(r"^(```|~~~)", re.M)
INCLUDE = re.compile(r"<!-- include: (\S+) -->")
CALLOUT = re.compile(r"^:{3,}\s*\{\.callout-(\w+)[^}]*\}\s*\n(.*?)\n:{3,}\s*$", re.M | re.S)
ALERT = re.compile(r"^> \[!(\w+)\]\n((?:^>.*\n?)+)", re.M)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
LIST_ITEM = re.compile(r"^( *)([-*+]|\d+[.)]) ")
NAME_IN_CODE = re.compile(r"(?<![\[`\w])`([A-Za-z_][\w.]*(?:\(\))?)`(?![\]`])")

Place = Callable[[Path, str], str | None]  # a file and an anchor → an address; None: no link


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    "`change(part)` applied to everything but fenced code."
    out: list[str] = []
    block: list[str] = []
    is_code = False
    for line in [*text.split("\n"), None]:
        if line is not None and not FENCE.match(line.lstrip()):
            block.append(line)
            continue
        if block:
            part = "\n".join(block)
            out.append(part if is_code else change(part))
            block = []
        if line is not None:
            out.append(line)
            is_code = not is_code
    return "\n".join(out)


# Dialects


def callouts(text: str) -> str:
    "Quarto's and GitHub's call-outs as admonitions."
    text = CALLOUT.sub(quarto_callout, text)
    return ALERT.sub(github_alert, text)


def quarto_callout(match: re.Match) -> str:
    "An admonition from a call-out of Quarto."
    return admonition(match[1], match[2].strip("\n").split("\n"))


def github_alert(match: re.Match) -> str:
    "An admonition from an alert of GitHub."
    lines = match[2].rstrip("\n").split("\n")
    return admonition(match[1], [line.removeprefix(">").removeprefix(" ") for line in lines])


def admonition(kind: str, lines: list[str]) -> str:
    "An admonition; a heading in its first line is its title."
    title = ""
    if lines and lines[0].startswith("#"):
        title = f' "{lines[0].lstrip("# ")}"'
        lines = lines[1:]
    body = "\n".join(f"    {line}" for line in lines)
    return f"!!! {kind.lower()}{title}\n\n{body}\n"


def commonmark(text: str) -> str:
    "Lists and formulas with the blank lines and the indent that Python-Markdown needs."
    out: list[str] = []
    for line in text.split("\n"):
        item = LIST_ITEM.match(line)
        before = out[-1] if out else ""
        is_after_text = bool(before.strip())
        starts_list = item and not LIST_ITEM.match(before) and not before.startswith(" ")
        if starts_list and is_after_text:
            out.append("")
        if item and len(item[1]) in (2, 3):
            line = "    " + line.lstrip()
        if line.startswith("$$") and is_after_text and not is_in_formula(out):
            out.append("")
        out.append(line)
        if line.rstrip().endswith("$$") and not is_in_formula(out):
            out.append("")
    return "\n".join(out)


def is_in_formula(lines: Sequence[str]) -> bool:
    "Whether a display formula is open at the end of `lines`."
    return sum(line.count("$$") for line in lines) % 2 == 1


# Links


def cross_links(text: str, page: Page, home: Mapping[str, Page]) -> str:
    "`` `Name` `` as a link to where Name is documented, outside of headings and links."

    def link(match: re.Match) -> str:
        return cross_link(match[1], page, home) or match[0]

    lines = text.split("\n")
    return "\n".join(
        line if line.startswith("#") else NAME_IN_CODE.sub(link, line) for line in lines
    )


def cross_link(code: str, page: Page, home: Mapping[str, Page]) -> str:
    "A name in code as a link to where it is documented; '' where it is documented nowhere."
    if re.fullmatch("[a-z]+", code):
        return ""  # as likely a parameter or a plain word; `name()` is linked
    name = code.removesuffix("()").removeprefix("alignmerge_nb.")
    if name not in home:
        name = name.partition(".")[2]
    if name not in home:
        return ""
    target = home[name]
    path = "" if target is page else relative_address(target.target, page)
    return f"[`{code}`]({path}#{name})"


def relative_address(target: str, page: Page) -> str:
    "The address of a file of the site, seen from a page."
    return os.path.relpath(target, PurePosixPath(page.target).parent)


def local_links(text: str, source: Path, place: Place) -> str:
    "Relative links, rewritten by `place(path, anchor)`; None leaves the bare text."

    def link(match: re.Match) -> str:
        address, _, anchor = match[2].partition("#")
        if not address or re.match(r"[a-z]+:", address):
            return match[0]
        target = place((source.parent / address).resolve(), anchor)
        return match[1] if target is None else f"[{match[1]}]({target})"

    return LINK.sub(link, text)


def site_place(page: Page, pages: Sequence[Page]) -> Place:
    "Where a file of the repository is on the site, seen from `page`."
    targets = {other.source.resolve(): other.target for other in reversed(pages)}
    for other in pages:  # an experiment's notebook leads to its executed page
        targets.setdefault(other.written_at.resolve(), other.target)

    def place(path: Path, anchor: str) -> str | None:
        if path not in targets:
            return None
        address = relative_address(targets[path], page)
        return f"{address}#{anchor}" if anchor else address

    return place


# Generated parts


def heading(notebook: nbformat.NotebookNode) -> tuple[str, str]:
    "Title and description of a notebook: its first `# …` line and the `> …` under it."
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            title, _, rest = cell.source.partition("\n")
            quote = re.match(r"\s*((?:>.*\n?)+)", rest)
            lines = quote[1].strip().split("\n") if quote else []
            return title[2:].strip(), " ".join(line.lstrip("> ") for line in lines)
    return "", ""


def filled(text: str, source: Path) -> str:
    "A Markdown cell with its generated parts; '' if an included file does not exist yet."
    if "<!-- notebooks -->" in text:
        text = text.replace("<!-- notebooks -->", notebook_table())
    for name in INCLUDE.findall(text):
        path = source.parent / name
        if not path.exists():
            return ""
        content = path.read_text(encoding="utf-8").strip()
        text = text.replace(f"<!-- include: {name} -->", content)
    return text


def notebook_table() -> str:
    "A Markdown table: a line for each folder of the library and for each other notebook."
    paths = [
        *sorted(NOTEBOOKS.glob("[0-9]*.ipynb")),
        *sorted(NOTEBOOKS.glob("experiments/*.ipynb")),
        *sorted(NOTEBOOKS.glob("tutorials/*.ipynb")),
    ]
    rows = [
        "| Notebook | What it holds |",
        "|---|---|",
        *map(folder_line, FOLDERS[1:]),
        *map(notebook_line, paths),
    ]
    return "\n".join(rows)


def folder_line(folder: str) -> str:
    "The line of a folder of the library, with the docstring of its package."
    paths = sorted((NOTEBOOKS / folder).glob("[0-9]*.ipynb"))
    package = (ROOT / "alignmerge_nb" / folder / "__init__.py").read_text()
    link = f"[{folder}]({paths[0].relative_to(NOTEBOOKS)})"
    count = f"{len(paths)} notebook{'s' * (len(paths) > 1)}"
    return f"| {link}, {count} | {ast.get_docstring(ast.parse(package))} |"


def notebook_line(path: Path) -> str:
    "The line of a notebook, with the sentence under its title."
    title, description = heading(nbformat.read(path, 4))
    return f"| [{title or stem(path)}]({path.relative_to(NOTEBOOKS)}) | {description} |"
