"""API blocks of the documentation, read from source: a signature, its docstring, a table of the commented parameters, the code folded away."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field

WIDE = 84  # characters of a signature that fit in one line of the page
SHOWN = {"__call__", "__getitem__", "__len__"}  # special methods that a reader calls


@dataclass
class Parameter:
    "One parameter, field or return value."

    name: str
    type: str = ""
    default: str = ""
    text: str = ""  # the comment beside it


@dataclass
class Symbol:
    "A function, class or constant of an export cell."

    name: str
    kind: str  # "function", "class" or "constant"
    signature: str
    text: str  # its docstring
    source: str
    parameters: list[Parameter] = field(default_factory=list)
    members: list[Symbol] = field(default_factory=list)

    def names(self) -> Iterator[str]:
        "The names that can be linked to."
        yield self.name
        for member in self.members:
            yield member.name


def comments(source: str) -> dict[int, str]:
    "The comment at the end of each line of code, by line number."
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    return {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokens
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
    }


def parameters(node: ast.FunctionDef, said: dict[int, str]) -> tuple[list[Parameter], list[str]]:
    "The parameters of a function with their comments, and each as it is written in a signature."
    found, written, given = [], [], node.args
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + given.defaults
    pairs = (
        list(zip(plain, defaults))
        + ([(given.vararg, None)] if given.vararg else [])
        + list(zip(given.kwonlyargs, given.kw_defaults))
        + ([(given.kwarg, None)] if given.kwarg else [])
    )
    lines = [(default or arg).end_lineno for arg, default in pairs]
    for (arg, default), line in zip(pairs, lines):
        if arg is (given.kwonlyargs or [None])[0] and not given.vararg:
            written.append("*")
        stars = "*" if arg is given.vararg else "**" if arg is given.kwarg else ""
        kind, value = (ast.unparse(part) if part else "" for part in (arg.annotation, default))
        written.append(
            f"{stars}{arg.arg}"
            + (f": {kind}" if kind else "")
            + ((" = " if kind else "=") + value if value else "")
        )
        if arg.arg not in ("self", "cls"):
            found.append(
                Parameter(
                    stars + arg.arg,
                    kind,
                    value,
                    said.get(line, "") if lines.count(line) == 1 else "",
                )
            )
    if (
        node.returns
        and (text := said.get(node.returns.end_lineno, ""))
        and node.returns.end_lineno not in lines
    ):
        found.append(Parameter("returns", ast.unparse(node.returns), "", text))
    return found, [text for text in written if text not in ("self", "cls")]


def signature(name: str, written: list[str], returns: str) -> str:
    "A signature in one line, or in one line per parameter where that is too long."
    line = f"{name}({', '.join(written)}){returns}"
    return (
        line
        if len(line) <= WIDE
        else f"{name}(\n" + "".join(f"    {text},\n" for text in written) + f"){returns}"
    )


def function(node: ast.FunctionDef, source: str, said: dict[int, str], owner: str = "") -> Symbol:
    "A function or method."
    found, written = parameters(node, said)
    name = f"{owner}.{node.name}" if owner else node.name
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
    shown = (
        f"{name}{returns.replace(' ->', ':')}" if is_property else signature(name, written, returns)
    )
    return Symbol(
        name, "function", shown, ast.get_docstring(node) or "", segment(source, node), found
    )


def segment(source: str, node: ast.AST) -> str:
    "The lines of a definition with its decorators and trailing comments."
    first = min(
        [node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]
    )
    return "\n".join(source.split("\n")[first - 1 : node.end_lineno])


def class_symbol(node: ast.ClassDef, source: str, said: dict[int, str]) -> Symbol:
    "A class: its fields or the parameters of its `__init__`, and its public methods."
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    begin = next((method for method in methods if method.name == "__init__"), None)
    if begin:
        found, written = parameters(begin, said)
    else:
        fields = [
            part
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        ]
        found = [
            Parameter(
                part.target.id,
                ast.unparse(part.annotation),
                ast.unparse(part.value) if part.value else "",
                said.get(part.end_lineno, ""),
            )
            for part in fields
        ]
        written = [
            f"{part.name}: {part.type}" + (f" = {part.default}" if part.default else "")
            for part in found
        ]
    members = [
        function(method, source, said, node.name)
        for method in methods
        if (method.name in SHOWN or not method.name.startswith("_")) and ast.get_docstring(method)
    ]
    return Symbol(
        node.name,
        "class",
        "class " + signature(node.name, written, ""),
        ast.get_docstring(node) or "",
        segment(source, node),
        found,
        members,
    )


def symbols_of(source: str) -> list[Symbol]:
    "The public definitions of an export cell, in order."
    said, found = comments(source), []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found.append(function(node, source, said))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found.append(class_symbol(node, source, said))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if (
                isinstance(target, ast.Name)
                and not target.id.startswith("_")
                and target.id.isupper()
            ):
                found.append(Symbol(target.id, "constant", segment(source, node), "", ""))
    return found


def table(found: list[Parameter]) -> str:
    "The commented parameters as a Markdown table; '' where there are none."
    if not any(part.text for part in found):
        return ""
    cell = lambda text: text.replace("|", "\\|") if "`" not in text else text  # noqa: E731  (a pipe inside a code span is no separator)
    kind = lambda part: f"`{part.type}" + (f" = {part.default}`" if part.default else "`")  # noqa: E731
    rows = [
        f"| {'*returns*' if part.name == 'returns' else f'`{part.name}`'} | {kind(part) if part.type else ''} | {cell(part.text)} |"
        for part in found
    ]
    return (
        '<div class="parameters" markdown>\n\n| Name | Type | Meaning |\n|---|---|---|\n'
        + "\n".join(rows)
        + "\n\n</div>"
    )


def body(symbol: Symbol, classes: str = "") -> list[str]:
    "Signature, docstring and parameters."
    return [
        part
        for part in (
            f"``` {{ .python .signature{classes} }}\n{symbol.signature}\n```",
            symbol.text,
            table(symbol.parameters),
        )
        if part
    ]


def api_block(
    symbol: Symbol,
    unfolded: bool = False,  # whether the source stands open
) -> str:
    "The Markdown of one symbol, with its members and its source."
    parts = [f"### {symbol.name} {{ #{symbol.name} .api .api-{symbol.kind} }}", *body(symbol)]
    for member in symbol.members:
        parts += [f"#### {member.name} {{ #{member.name} .api-member }}", *body(member)]
    if symbol.source:
        code = "\n".join(
            f"    {line}" if line else ""
            for line in f"``` python\n{symbol.source}\n```".split("\n")
        )
        parts.append(f'???{"+" if unfolded else ""} quote "Source of {symbol.name}"\n\n{code}')
    return "\n\n".join(parts)
