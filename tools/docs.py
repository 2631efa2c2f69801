"""The documentation site and README.md, made from the notebooks.

python tools/docs.py site              notebooks -> _proc/site/*.md -> _docs/ (mkdocs, strict)
python tools/docs.py readme [--check]  nbs/index.ipynb -> README.md

Nothing is imported or executed: API blocks come from the source of the export cells, outputs from
the notebooks. Nothing is fetched when a page is read. The steps are the modules of tools/website.
"""

from __future__ import annotations

import argparse
import sys

from website.building import build_site
from website.pages import ROOT
from website.readme import readme


def write_readme(check: bool) -> int:
    "Write README.md; with `check`, change nothing and give 1 where it is out of date."
    path = ROOT / "README.md"
    text = readme()
    current = path.read_text(encoding="utf-8") if path.exists() else ""
    if text == current:
        return 0
    if check:
        print(
            "docs: README.md is not what nbs/index.ipynb gives; run `make lib`.",
            file=sys.stderr,
        )
        return 1
    path.write_text(text, encoding="utf-8")
    return 0


def main(words: list[str] | None = None) -> int:
    "Exit status."
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("site", "readme"))
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing; fail if README.md is not what the notebook gives",
    )
    options = parser.parse_args(words)
    if options.what == "readme":
        return write_readme(options.check)
    build_site()
    return 0


if __name__ == "__main__":
    sys.exit(main())
