"The notebooks of experiments: their parameters, how they are executed, and what of them is kept."

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import nbformat
import papermill
import yaml
from nbclient.exceptions import DeadKernelError

from alignmerge_nb.core import InputError, lookup

ANSI = re.compile("\x1b\\[.*?m")
ADDRESS = re.compile(r"\b0x[0-9a-f]{8,16}\b")
KERNEL = {"display_name": "python3", "language": "python", "name": "python3"}


class CellError(RuntimeError):
    "A notebook failed; the message is all that is printed."


def experiments(root: Path, tier: str) -> list[tuple[Path, Path]]:
    "(notebook, parameters) of every experiment of the tier."
    files = sorted((root / "nbs" / "experiments").glob("[!._]*.ipynb"))
    notebooks = {path.stem: path for path in files}
    parameters = sorted((root / "paper" / "params" / tier).glob("*.yaml"))
    return [(lookup(notebooks, path.stem, "experiment notebook"), path) for path in parameters]


def parameters_of(notebook: Path, path: Path, tier: str, **further: object) -> dict:
    "The parameters of a run, checked against the notebook: papermill accepts misspelt ones."
    values = _read_parameters(path)
    if values.get("tier", tier) != tier:
        raise InputError(
            f"tier: {values['tier']} in {path}",
            f"tier: {tier}, like its folder",
            "Correct the line.",
        )
    declared = papermill.inspect_notebook(str(notebook))
    for name in (*values, "tier", *further):
        lookup(declared, name, f"parameter of {notebook.name}")
    return {**values, "tier": tier, **further}


def _read_parameters(path: Path) -> dict:
    "The names and values of a file of parameters."
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise InputError(
            f"{path}, which is no YAML ({' '.join(str(error).split())})",
            "one `name: value` a line",
            "Correct the file.",
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            f"{path} holding a {type(values).__name__}",
            "one `name: value` a line",
            "Correct the file.",
        )
    return values


def execute(notebook: Path, parameters: dict, root: Path) -> nbformat.NotebookNode:
    "The executed notebook; a failing cell becomes a short `CellError`."
    os.environ["ALIGNMERGE_QUIET"] = "1"  # no progress bars in outputs
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not the user's
    try:
        with tempfile.TemporaryDirectory(prefix="alignmerge-") as folder:
            return papermill.execute_notebook(
                str(notebook),
                str(Path(folder) / notebook.name),
                parameters,
                kernel_name="python3",
                cwd=str(root),
                progress_bar=sys.stderr.isatty(),
                extra_arguments=["--log-level=50"],  # the kernel's warnings are about the kernel
            )
    except papermill.PapermillExecutionError as error:
        raise CellError(_cell_message(error, notebook)) from None
    except DeadKernelError as error:
        raise CellError(
            f"{notebook.name}: the kernel died, most often for want of memory; "
            "finished rows are kept"
        ) from error


def _cell_message(error: papermill.PapermillExecutionError, notebook: Path) -> str:
    "What failed, in which cell, and the lines of code from the cell inwards."
    what = error.evalue if error.ename == "InputError" else f"{error.ename}: {error.evalue}"
    where = f"in {notebook.name}, cell {error.cell_index}; finished rows are kept"
    trace = ANSI.sub("", "\n".join(error.traceback)).splitlines()
    lines = [line.strip() for line in trace if re.match(r"\s*-+> \d", line)]
    return "\n  ".join([what, where, *lines[:4]])


def scrub(notebook: nbformat.NotebookNode, root: Path) -> nbformat.NotebookNode:
    "The notebook without paths, addresses, timings, stderr and widgets."
    paths = _machine_paths(root)
    notebook.metadata = {"kernelspec": KERNEL}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if "injected-parameters" in tags:
            cell.id = "injected-parameters"  # papermill draws a new one each time
        if cell.cell_type == "code":
            shown = [output for output in cell.outputs if _is_shown(output)]
            cell.outputs = _join_streams(_plain(output, paths) for output in shown)
    return notebook


def _machine_paths(root: Path) -> dict[str, str]:
    "What stands for each path of this machine, the longest path first."
    paths = {
        f"{root}/": "",
        str(root): ".",
        f"{sys.prefix}/": "",
        tempfile.gettempdir() + "/": "",
        f"{Path.home()}/": "~/",
    }
    return dict(sorted(paths.items(), key=lambda item: len(item[0]), reverse=True))


def _is_shown(output: nbformat.NotebookNode) -> bool:
    "Whether an output is neither stderr nor a widget."
    is_widget = any("widget" in kind for kind in output.get("data", {}))
    return output.get("name") != "stderr" and not is_widget


def _is_base64(kind: str) -> bool:
    "Whether a MIME type is stored as base64."
    return kind.startswith(("image/", "application/pdf")) and kind != "image/svg+xml"


def _plain(value: object, paths: dict[str, str], kind: str = "") -> object:
    "A value of an output without paths and addresses; `kind` is its key, such as a MIME type."
    if isinstance(value, dict):
        return {key: _plain(each, paths, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, paths, kind) for each in value]
    if not isinstance(value, str) or _is_base64(kind):
        return value
    for path, replacement in paths.items():
        value = value.replace(path, replacement)
    return ADDRESS.sub("0x…", value)


def _join_streams(outputs: Iterable[dict]) -> list[nbformat.NotebookNode]:
    "Outputs with neighbouring pieces of stdout joined: they arrive in pieces of any size."
    joined: list[nbformat.NotebookNode] = []
    for output in map(nbformat.from_dict, outputs):
        if joined and output.output_type == "stream" == joined[-1].output_type:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined
