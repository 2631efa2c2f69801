"""API blocks of the documentation, read from source.

A block has a signature, the docstring, a table of parameters, and the code folded away. The table
comes from the docstring where that has a section of parameters, and else from the comments beside
the parameters.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .docstrings import Docs, Parameter, parse_docstring

WIDE = 84  # characters of a signature that fit in one line of the page
CALLED = {"__call__", "__getitem__", "__len__"}  # special methods that a reader calls


@dataclass
class Symbol:
    "A function, class or constant of an export cell."

    name: str
    kind: str  # "function", "class" or "constant"
    signature: str
    text: str  # of its docstring
    source: str
    parameters: list[Parameter] = field(default_factory=list)
    further: list[str] = field(default_factory=list)  # other sections of its docstring, Markdown
    members: list[Symbol] = field(default_factory=list)

    def names(self) -> Iterator[str]:
        "The names that can be linked to."
        yield self.name
        for member in self.members:
            yield member.name


# Source


def comments(source: str) -> dict[int, str]:
    "The comment at the end of each line of code, by line number."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    trailing = [
        token
        for token in tokens
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
    ]
    return {token.start[0]: token.string.lstrip("# ").strip() for token in trailing}


def segment(source: str, node: ast.AST) -> str:
    "The lines of a definition with its decorators and trailing comments."
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "\n".join(source.split("\n")[first - 1 : node.end_lineno])


def unparsed(node: ast.AST | None) -> str:
    "The source of an expression; '' where there is none."
    return ast.unparse(node) if node else ""


# Parameters


@dataclass
class Argument:
    "A parameter as it stands in a signature."

    stars: str  # "", "*" or "**"
    name: str
    type: str
    default: str
    line: int  # of its end

    @property
    def written(self) -> str:
        "The argument in a signature."
        text = self.stars + self.name
        if self.type:
            text += f": {self.type}"
        if self.default:
            text += f" = {self.default}" if self.type else f"={self.default}"
        return text


def argument(arg: ast.arg, default: ast.expr | None = None, stars: str = "") -> Argument:
    "An argument from its node."
    line = (default or arg).end_lineno
    return Argument(stars, arg.arg, unparsed(arg.annotation), unparsed(default), line)


def arguments(node: ast.FunctionDef) -> list[Argument]:
    "The arguments of a function in order; a bare star has no name."
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    missing = [None] * (len(positional) - len(args.defaults))
    found = list(map(argument, positional, [*missing, *args.defaults]))
    if args.vararg:
        found.append(argument(args.vararg, stars="*"))
    elif args.kwonlyargs:
        found.append(Argument("*", "", "", "", 0))
    found += map(argument, args.kwonlyargs, args.kw_defaults)
    if args.kwarg:
        found.append(argument(args.kwarg, stars="**"))
    return found


def without_self(found: Sequence[Argument]) -> list[Argument]:
    "The arguments that a caller gives."
    return [each for each in found if each.name not in ("self", "cls")]


def commented_parameters(node: ast.FunctionDef, comment: Mapping[int, str]) -> list[Parameter]:
    "The parameters of a function, and what it returns, with the comments beside them."
    named = [each for each in arguments(node) if each.name]
    lines = [each.line for each in named]
    parameters = []
    for each in without_self(named):
        text = comment.get(each.line, "") if lines.count(each.line) == 1 else ""
        parameters.append(Parameter(each.stars + each.name, each.type, each.default, text))
    if node.returns and node.returns.end_lineno not in lines:
        text = comment.get(node.returns.end_lineno, "")
        if text:
            parameters.append(Parameter("returns", unparsed(node.returns), "", text))
    return parameters


def field_parameters(node: ast.ClassDef, comment: Mapping[int, str]) -> list[Parameter]:
    "The annotated fields of a class with the comments beside them."
    return [
        Parameter(
            part.target.id,
            unparsed(part.annotation),
            unparsed(part.value),
            comment.get(part.end_lineno, ""),
        )
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    ]


def described(parameters: Sequence[Parameter], docs: Docs) -> list[Parameter]:
    "The parameters of a docstring in its order, then those that it leaves out; with returns."
    own = {each.name: each for each in parameters}
    documented = [completed(each, own.get(each.name)) for each in docs.parameters.values()]
    hidden = {*docs.parameters, "returns"} if docs.returns else {*docs.parameters}
    others = [each for each in parameters if each.name not in hidden]
    return [*documented, *others, *docs.returns]


def completed(documented: Parameter, own: Parameter | None) -> Parameter:
    "A parameter of a docstring with the type and default of the signature."
    if own is None:
        return documented
    return replace(documented, type=own.type or documented.type, default=own.default)


# Symbols


def signature(
    name: str,
    written: Sequence[str],  # parameters
    returns: str = "",  # " -> …"
) -> str:
    "A signature in one line, or in one line per parameter where that is too long."
    line = f"{name}({', '.join(written)}){returns}"
    if len(line) <= WIDE:
        return line
    return "\n".join([f"{name}(", *(f"    {text}," for text in written), f"){returns}"])


def function(
    node: ast.FunctionDef,
    source: str,
    comment: Mapping[int, str],
    owner: str = "",  # the class of a method
) -> Symbol:
    "A function or method."
    docs = parse_docstring(ast.get_docstring(node) or "")
    name = f"{owner}.{node.name}" if owner else node.name
    returns = unparsed(node.returns)
    if any("property" in unparsed(decorator) for decorator in node.decorator_list):
        shown = f"{name}: {returns}" if returns else name
    else:
        written = [each.written for each in without_self(arguments(node))]
        shown = signature(name, written, f" -> {returns}" if returns else "")
    return Symbol(
        name,
        "function",
        shown,
        docs.text,
        segment(source, node),
        described(commented_parameters(node, comment), docs),
        docs.further,
    )


def class_symbol(node: ast.ClassDef, source: str, comment: Mapping[int, str]) -> Symbol:
    "A class: its fields or the parameters of its `__init__`, and its public methods."
    docs = parse_docstring(ast.get_docstring(node) or "")
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    begin = next((method for method in methods if method.name == "__init__"), None)
    if begin:
        parameters = commented_parameters(begin, comment)
        written = [each.written for each in without_self(arguments(begin))]
    else:
        parameters = field_parameters(node, comment)
        written = [field_written(each) for each in parameters]
    return Symbol(
        node.name,
        "class",
        "class " + signature(node.name, written),
        docs.text,
        segment(source, node),
        described(parameters, docs),
        docs.further,
        [function(each, source, comment, node.name) for each in methods if is_shown(each)],
    )


def field_written(parameter: Parameter) -> str:
    "A field in the signature of its class."
    text = f"{parameter.name}: {parameter.type}"
    return f"{text} = {parameter.default}" if parameter.default else text


def is_shown(method: ast.FunctionDef) -> bool:
    "Whether a method is public and documented."
    is_public = method.name in CALLED or not method.name.startswith("_")
    return is_public and bool(ast.get_docstring(method))


def symbols_of(source: str) -> list[Symbol]:
    "The public definitions of an export cell, in order."
    comment = comments(source)
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found.append(function(node, source, comment))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found.append(class_symbol(node, source, comment))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = getattr(target, "id", "")
            if name.isupper() and not name.startswith("_"):
                found.append(Symbol(name, "constant", segment(source, node), "", ""))
    return found


# Markdown


def table(parameters: Sequence[Parameter]) -> str:
    "The parameters as a Markdown table; '' where nothing is said of any."
    if not any(each.text for each in parameters):
        return ""
    head = ["| Name | Type | Meaning |", "|---|---|---|"]
    rows = "\n".join([*head, *map(table_row, parameters)])
    return f'<div class="parameters" markdown>\n\n{rows}\n\n</div>'


def table_row(parameter: Parameter) -> str:
    "A line of the table of parameters."
    name = "*returns*" if parameter.name == "returns" else f"`{parameter.name}`"
    kind = parameter.type
    if kind and parameter.default:
        kind += f" = {parameter.default}"
    kind = f"`{kind}`" if kind else ""
    text = parameter.text
    if "`" not in text:
        text = text.replace("|", "\\|")  # a pipe inside a code span is no separator
    return f"| {name} | {kind} | {text} |"


def body(
    symbol: Symbol,
    classes: str = "",  # further classes of the signature's block
) -> list[str]:
    "Signature, docstring and parameters."
    parts = [
        f"``` {{ .python .signature{classes} }}\n{symbol.signature}\n```",
        symbol.text,
        table(symbol.parameters),
        *symbol.further,
    ]
    return [part for part in parts if part]


def api_block(
    symbol: Symbol,
    unfolded: bool = False,  # whether the source stands open
) -> str:
    "The Markdown of one symbol, with its members and its source."
    parts = [f"### {symbol.name} {{ #{symbol.name} .api .api-{symbol.kind} }}", *body(symbol)]
    for member in symbol.members:
        parts += [f"#### {member.name} {{ #{member.name} .api-member }}", *body(member)]
    if symbol.source:
        parts.append(folded_source(symbol, unfolded))
    return "\n\n".join(parts)


def folded_source(symbol: Symbol, unfolded: bool) -> str:
    "The source of a symbol in a block that opens."
    lines = f"``` python\n{symbol.source}\n```".split("\n")
    code = "\n".join(f"    {line}" if line else "" for line in lines)
    mark = "???+" if unfolded else "???"
    return f'{mark} quote "Source of {symbol.name}"\n\n{code}'
