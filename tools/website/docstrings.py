"What a docstring in numpydoc's form says, as Markdown and parameters; griffe reads its sections."

from __future__ import annotations

import re
from dataclasses import dataclass, field

import griffe
from griffe import DocstringSection
from griffe import DocstringSectionKind as Kind

FOOTNOTE = re.compile(r"^\.\. \[(\d+)\]\s+", re.M)
PARAMETERS = (Kind.parameters, Kind.other_parameters, Kind.attributes)
RETURNS = (Kind.returns, Kind.yields)


@dataclass
class Parameter:
    "One parameter, field or return value."

    name: str
    type: str = ""
    default: str = ""
    text: str = ""  # what it means


@dataclass
class Docs:
    "A docstring in parts."

    text: str = ""  # the summary and what follows it, Markdown
    parameters: dict[str, Parameter] = field(default_factory=dict)  # of its sections, by name
    returns: list[Parameter] = field(default_factory=list)
    further: list[str] = field(default_factory=list)  # other sections, Markdown


def parse_docstring(
    docstring: str,  # "" for none
) -> Docs:
    "The parts of a docstring; one without sections is text as a whole."
    docs = Docs()
    texts = []
    sections = griffe.Docstring(docstring).parse("numpy", warnings=False, trim_doctest_flags=True)
    for section in sections:
        if section.kind is Kind.text:
            texts.append(section.value)
        elif section.kind in PARAMETERS:
            docs.parameters |= {each.name: parameter(each) for each in section.value}
        elif section.kind in RETURNS:
            docs.returns += [parameter(each, "returns") for each in section.value]
        else:
            docs.further.append(section_markdown(section))
    docs.text = "\n\n".join(texts)
    return docs


def parameter(element: griffe.DocstringNamedElement, name: str = "") -> Parameter:
    "A parameter of a docstring; its meaning in one line, as a table needs it."
    meaning = " ".join((element.description or "").split())
    return Parameter(name or element.name, str(element.annotation or ""), "", meaning)


def section_markdown(section: DocstringSection) -> str:
    "A section other than text, parameters and returns: its title and what it holds."
    if section.kind is Kind.examples:
        return titled("Examples", [example_markdown(*each) for each in section.value])
    if section.kind in (Kind.raises, Kind.warns):
        title = "Raises" if section.kind is Kind.raises else "Warns"
        return titled(title, ["\n".join(map(raised_markdown, section.value))])
    if section.kind is Kind.admonition:
        return titled(section.title or "Note", [FOOTNOTE.sub(r"\1. ", section.value.contents)])
    raise ValueError(f"a docstring with the section {section.kind.value!r}, which has no form yet")


def titled(title: str, parts: list[str]) -> str:
    "A bold line and the parts under it."
    return "\n\n".join([f"**{title}**", *parts])


def example_markdown(kind: Kind, text: str) -> str:
    "A part of an example: a sentence, or lines of a session."
    return f"``` pycon\n{text}\n```" if kind is Kind.examples else text


def raised_markdown(element: griffe.DocstringRaise) -> str:
    "An exception and when it is raised, as an item of a list."
    return f"- `{element.annotation}`: {' '.join(element.description.split())}"
