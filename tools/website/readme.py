"README.md, from the notebook of the start page."

from __future__ import annotations

import os
from pathlib import Path

import nbformat

from .cells import DIRECTIVE, clean, directives
from .markdown import filled, local_links, outside_fences
from .pages import NOTEBOOKS, ROOT

SOURCE = NOTEBOOKS / "index.ipynb"


def readme() -> str:
    "The text of README.md."
    parts = ["<!-- generated from nbs/index.ipynb by tools/docs.py -->"]
    for cell in nbformat.read(SOURCE, 4).cells:
        if cell.cell_type == "markdown":
            parts.append(outside_fences(filled(cell.source, SOURCE), linked))
        elif cell.cell_type == "code":
            parts += code_parts(cell)
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def linked(part: str) -> str:
    "Text with its links seen from the root of the repository."
    return local_links(part, SOURCE, repository_place)


def repository_place(path: Path, anchor: str) -> str:
    "The address of a file, seen from the root of the repository."
    address = os.path.relpath(path, ROOT)
    return f"{address}#{anchor}" if anchor else address


def code_parts(cell: nbformat.NotebookNode) -> list[str]:
    "A code cell and its printed outputs."
    if {"hide", "default_exp", "export"} & directives(cell.source).keys():
        return []
    parts = [f"```python\n{DIRECTIVE.sub('', cell.source).strip()}\n```"]
    for output in cell.outputs:
        if output.get("name") == "stderr":
            continue
        text = clean(output.get("text") or output.get("data", {}).get("text/plain", ""))
        if text.strip():
            parts.append(f"```text\n{text.rstrip()}\n```")
    return parts
