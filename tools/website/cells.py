"Code cells and their outputs as Markdown."

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from .api import api_block, symbols_of
from .pages import ROOT, Page

DIRECTIVE = re.compile(r"^#\|\s*([\w-]+:?)[ \t]*(.*)$", re.M)
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
IMAGE_TYPES = {"image/svg+xml": ".svg", "image/png": ".png", "image/jpeg": ".jpg"}
NUMBER = r"[-+−]?[\d.,]+(?:e[-+]?\d+)?\s?%?"


def directives(source: str) -> dict[str, str]:
    "The `#| name value` lines of a cell."
    return {name.rstrip(":"): value.strip() for name, value in DIRECTIVE.findall(source)}


def clean(text: str) -> str:
    "Output text without colour codes, carriage returns and this machine's paths."
    last_writes = (line.rpartition("\r")[2] for line in text.split("\n"))
    text = ANSI.sub("", "\n".join(last_writes))
    text = text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".")
    return text.replace(str(Path.home()), "~")


def fenced(text: str, language: str, *classes: str) -> str:
    "A code block whose fence is longer than any inside."
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    ticks = "`" * (longest + 1)
    if "cell-output" in classes and "\n" not in text.strip():
        classes += ("one-line",)
    names = " .".join([language, *classes])
    return f"{ticks} {{ .{names} }}\n{text.rstrip()}\n{ticks}"


def indented(text: str) -> str:
    "Four spaces in front of every line, for the body of an admonition."
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))


# Outputs


def output_markdown(output: nbformat.NotebookNode, folder: Path, name: str, alt: str) -> str:
    "One output as Markdown; images are written into `folder`. Stderr is left out."
    if output.output_type == "stream":
        return plain_output(output.text) if output.name == "stdout" else ""
    if output.output_type == "error":
        return plain_output(f"{output.ename}: {output.evalue}")
    data = output.data
    for kind, ending in IMAGE_TYPES.items():
        if kind in data:
            folder.mkdir(parents=True, exist_ok=True)
            content = data[kind].encode() if ending == ".svg" else base64.b64decode(data[kind])
            (folder / f"{name}{ending}").write_bytes(content)
            return f"![{alt}]({folder.name}/{name}{ending}){{ .figure loading=lazy }}"
    if "text/markdown" in data:
        return clean(data["text/markdown"])
    if "text/html" in data:
        return html_output(clean(data["text/html"]))
    if "text/latex" in data:
        return data["text/latex"]
    return plain_output(data.get("text/plain", ""))


def plain_output(text: str) -> str:
    "Printed text; '' where there is none."
    return fenced(clean(text), "text", "cell-output") if text.strip() else ""


def html_output(text: str) -> str:
    "HTML without styles and scripts of its own; numbers of a data frame to the right."
    text = re.sub(r"<(style|script).*?</\1>", "", text, flags=re.S).replace("\n\n", "\n")
    text = re.sub(r'<table border="1" class="dataframe">', "<table>", text)
    text = text.replace(' style="text-align: right;"', "")
    alignments = column_alignments(text)

    def aligned_head(match: re.Match) -> str:
        return re.sub(r"<th>", lambda _: f"<th{next(alignments, '')}>", match[0])

    text = re.sub(r"<thead>.*?</thead>", aligned_head, text, flags=re.S)
    return re.sub(rf"<td>({NUMBER}|NaN)</td>", r'<td align="right">\1</td>', text)


def column_alignments(text: str) -> Iterator[str]:
    "The attribute of each column's head, by the first line of a table: numbers to the right."
    first_line = re.search(r"<tbody>\s*<tr>(.*?)</tr>", text, re.S)
    values = re.findall(r"<(?:td|th)>(.*?)</", first_line[1] if first_line else "")
    for value in values:
        yield ' align="right"' if re.fullmatch(NUMBER, value) else ""


# Code


def code_markdown(
    cell: nbformat.NotebookNode, page: Page, folder: Path, number: int, alt: str
) -> list[str]:
    "A code cell and its outputs; experiments fold the code away."
    settings = directives(cell.source)
    tags = cell.metadata.get("tags", [])
    if {"hide", "default_exp", "exporti"} & settings.keys() or "remove-cell" in tags:
        return []
    if {"export", "exports"} & settings.keys():
        return [api_block(symbol, "exports" in settings) for symbol in symbols_of(cell.source)]
    if page.is_experiment and "parameters" in tags and page.note.startswith("Executed"):
        return []  # papermill's own cell says what ran
    parts = []
    if settings.get("echo") != "false" and "hide_input" not in settings:
        parts.append(shown_code(cell.source, tags, page))
    if settings.get("output") != "false" and "hide_output" not in settings:
        parts += [
            output_markdown(output, folder, f"{number}_{k}", alt)
            for k, output in enumerate(cell.get("outputs", []))
        ]
    return [part for part in parts if part]


def shown_code(source: str, tags: list[str], page: Page) -> str:
    "The code of a cell, folded away on the page of an experiment; '' where there is none."
    source = DIRECTIVE.sub("", source).strip("\n")
    if "injected-parameters" in tags:
        source = re.sub(r"^# Parameters\n", "", source)
    if not source.strip():
        return ""
    block = fenced(source, "python")
    if not page.is_experiment:
        return block
    title = "Parameters" if {"parameters", "injected-parameters"} & set(tags) else "Code"
    return f'??? abstract "{title}"\n\n{indented(block)}\n'
