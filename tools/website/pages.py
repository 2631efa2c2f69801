"Which pages the site has: where each comes from, where it goes, and where it stands in the menu."

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .api import Symbol

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = ROOT / "nbs"
TIERS = ("full", "cpu")  # the published one first
FOLDERS = (  # of the library
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
)
DOCUMENTS = {
    "ARCHITECTURE.md": "architecture.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "data_scripts/README.md": "data_sources.md",
}


@dataclass(eq=False)
class Page:
    "One page of the site."

    source: Path  # a notebook or a Markdown document
    target: str  # under the site's folder: "core.md", "experiments/full/retrieval.md"
    section: tuple[str, ...]  # the path in the navigation, () at the top
    note: str = ""  # a line under the title
    title: str = ""
    symbols: dict[str, Symbol] = field(default_factory=dict)  # what the page documents

    @property
    def written_at(self) -> Path:
        "The file that its relative links were written for: papermill moves a notebook."
        return NOTEBOOKS / "experiments" / self.source.name if self.is_experiment else self.source

    @property
    def is_experiment(self) -> bool:
        "Whether results come first and code is folded away."
        return bool(self.section) and self.section[0] == "Experiments"


def stem(path: Path) -> str:
    "A notebook's name without its number."
    return re.sub(r"^\d+[a-z]?_", "", path.stem)


def all_pages() -> list[Page]:
    "Every page of the site, in the order of the navigation."
    return [
        Page(NOTEBOOKS / "index.ipynb", "index.md", ()),
        *map(library_page, library_notebooks()),
        *tutorial_pages(),
        *experiment_pages(),
        *document_pages(),
    ]


def library_notebooks() -> list[Path]:
    "The notebooks that export the library, folder by folder."
    folders = [NOTEBOOKS / folder for folder in FOLDERS]
    return [path for folder in folders for path in sorted(folder.glob("[0-9]*.ipynb"))]


def library_page(path: Path) -> Page:
    "The page of a library notebook."
    relative = path.relative_to(NOTEBOOKS)
    folder = relative.parent
    package = ".".join(("alignmerge_nb", *folder.parts))
    return Page(
        path,
        (folder / f"{stem(path)}.md").as_posix(),
        ("Library", *folder.parts),
        f"`from {package} import {stem(path)}` · source: `nbs/{relative}`",
    )


def tutorial_pages() -> list[Page]:
    "A page per tutorial."
    paths = sorted((NOTEBOOKS / "tutorials").glob("*.ipynb"))
    return [Page(path, f"tutorials/{stem(path)}.md", ("Tutorials",)) for path in paths]


def experiment_pages() -> list[Page]:
    "A page per executed experiment and tier; the notebook itself where it was not executed yet."
    executed = [page for tier in TIERS for page in executed_pages(tier)]
    names = {page.source.name for page in executed}
    others = [
        Page(
            path,
            f"experiments/{stem(path)}.md",
            ("Experiments",),
            f"Smoke-size parameters · source: `nbs/experiments/{path.name}`",
        )
        for path in sorted((NOTEBOOKS / "experiments").glob("*.ipynb"))
        if path.name not in names
    ]
    return [*executed, *others]


def executed_pages(tier: str) -> list[Page]:
    "A page per executed experiment of a tier."
    return [
        Page(
            path,
            f"experiments/{tier}/{stem(path)}.md",
            ("Experiments", f"Tier {tier}"),
            f"Executed by papermill in tier `{tier}` · source: `nbs/experiments/{path.name}`",
        )
        for path in sorted((ROOT / "paper" / "executed" / tier).glob("*.ipynb"))
    ]


def document_pages() -> list[Page]:
    "A page per document of the repository."
    return [
        Page(ROOT / source, target, ("Project",))
        for source, target in DOCUMENTS.items()
        if (ROOT / source).exists()
    ]


def navigation(pages: list[Page]) -> list:
    "The nested `nav` of mkdocs.yml."
    menu: list = []
    for page in pages:
        level = menu
        for name in page.section:
            level = submenu(level, name)
        name = page.title.partition(":")[0] if page.section else "Home"
        level.append({name: page.target})
    return menu


def submenu(level: list, name: str) -> list:
    "The entries under a name of the menu, which is added where it is missing."
    for entry in level:
        if name in entry:
            return entry[name]
    entries: list = []
    level.append({name: entries})
    return entries
