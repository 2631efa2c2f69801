"""The documentation site in a real browser: pages, formulas, search, and no other host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import Browser, Server, find_chromium

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site() -> Path:
    "The site, built strictly; reused where it was built from the same inputs."
    pytest.importorskip("material", reason="the docs extra is not installed")
    built = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "docs.py"), "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return ROOT / "_docs"


@pytest.fixture(scope="module")
def visit(site: Path):
    "A browser and the address of the site."
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium on this machine: pages are built but not looked at")
    server, browser = Server(site), Browser(chromium)
    yield browser, server.address
    browser.close()
    server.close()


def pages(site: Path) -> list[str]:
    "Every page, as an address under the site."
    return [
        str(path.relative_to(site))
        for path in sorted(site.rglob("*.html"))
        if path.name != "404.html"
    ]


def test_readme_is_what_the_index_gives() -> None:
    checked = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "docs.py"), "readme", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


def test_every_notebook_has_a_page(site: Path) -> None:
    there = {Path(page).stem for page in pages(site)}
    notebooks = [
        path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
    ]
    assert there >= {path.stem.lstrip("0123456789_") for path in notebooks}


def test_links_of_tutorials_lead_somewhere() -> None:
    for path in (ROOT / "nbs" / "tutorials").glob("*.ipynb"):
        prose = "\n".join(
            "".join(cell["source"])
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "markdown"
        )
        links = re.findall(r"\]\(([^)#:\s]+)\)", prose)
        assert links and not [link for link in links if not (path.parent / link).exists()], (
            path.name
        )


def test_tutorials_are_in_the_navigation(site: Path) -> None:
    for path in (ROOT / "nbs" / "tutorials").glob("*.ipynb"):
        assert f'href="tutorials/{path.stem}.html"' in (site / "core.html").read_text(
            encoding="utf-8"
        ), path.name


def test_pages_hold_no_machine_path_and_no_raw_output(site: Path) -> None:
    for page in pages(site):
        text = (site / page).read_text(encoding="utf-8")
        for mark in (
            str(ROOT),
            "\x1b[",
            "<Figure size",
            "&lt;Figure size",
            '"cell_type"',
            "text/plain",
        ):
            assert mark not in text, f"{page}: {mark!r}"


def test_every_page_renders(visit, site: Path) -> None:
    browser, address = visit
    browser.requests.clear()
    browser.complaints.clear()
    for width in (1280, 390):
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        for page in pages(site):
            browser.open(f"{address}/{page}")
            assert browser.ask("document.querySelectorAll('article h1').length") == 1, page
            assert browser.ask("document.querySelector('article').innerText.length") > 150, page
            wide = browser.ask(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 1, f"{page} is {wide} px wider than a window of {width} px"
            assert browser.ask(
                "[...document.images].every("
                "image => image.loading == 'lazy' || image.naturalWidth > 0)"
            ), page
    assert not browser.complaints
    outside = [
        url for url in browser.requests if not url.startswith((address, "data:", "blob:", "about:"))
    ]
    assert browser.requests and not outside


def test_images_exist(site: Path) -> None:
    for page in pages(site):
        for source in re.findall(
            r'<img[^>]* src="([^"]+)"', (site / page).read_text(encoding="utf-8")
        ):
            assert source.startswith("data:") or ((site / page).parent / source).exists(), (
                f"{page}: {source}"
            )


PROSE = """[...document.querySelectorAll('article p, article li, article td')]
    .filter(element => !element.closest('pre, code'))
    .map(element => {
        const copy = element.cloneNode(true);
        copy.querySelectorAll('.katex, code, pre').forEach(part => part.remove());
        return copy.innerText;
    })"""


def test_formulas_are_set(visit, site: Path) -> None:
    browser, address = visit
    if not (site / "katex").is_dir():
        pytest.skip("built without KaTeX: neither npm nor libjs-katex")
    browser.open(f"{address}/transport/sinkhorn.html")
    assert browser.wait("document.querySelectorAll('.katex').length") > 5
    for page in pages(site):
        browser.open(f"{address}/{page}")
        browser.wait(
            "[...document.querySelectorAll('.arithmatex')]"
            ".every(element => element.querySelector('.katex'))",
            5,
        )
        assert (
            browser.ask(
                "[...document.querySelectorAll('.arithmatex')]"
                ".filter(element => !element.querySelector('.katex'))"
                ".map(element => element.innerText)"
            )
            == []
        ), page
        assert (
            browser.ask(
                "[...document.querySelectorAll('.katex-error')].map(element => element.innerText)"
            )
            == []
        ), page
        texts = browser.ask(PROSE)
        unset = [text for text in texts if any(mark in text for mark in ("\\(", "\\[", "$$"))]
        assert unset == [], page


@pytest.mark.parametrize("symbol", ["Coupling", "InputError", "load_dataset"])
def test_search_finds(visit, symbol: str) -> None:
    browser, address = visit
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=1280,
        height=900,
        deviceScaleFactor=1,
        mobile=False,
    )
    browser.open(f"{address}/index.html")
    browser.ask("document.querySelector('label[for=__search]').click(), 1")
    browser.ask(
        f"""(() => {{
            const box = document.querySelector('input.md-search__input');
            box.focus();
            box.value = {symbol!r};
            box.dispatchEvent(new Event('input', {{bubbles: true}}));
            box.dispatchEvent(new Event('keyup', {{bubbles: true}}));
        }})()"""
    )
    found = browser.wait(
        f"""[...document.querySelectorAll('.md-search-result__link')]
            .map(link => link.getAttribute('href'))
            .find(link => link.endsWith('#{symbol}') || link.includes('#{symbol}?')
                || link.includes('?h={symbol.lower()}')) || ''"""
    )
    assert found, f"search does not find {symbol}"


def test_dark_mode(visit) -> None:
    browser, address = visit
    browser.open(f"{address}/index.html")
    colour = "getComputedStyle(document.body).backgroundColor"
    before, scheme = (
        browser.ask(colour),
        browser.ask("document.body.getAttribute('data-md-color-scheme')"),
    )
    browser.ask(
        "[...document.querySelectorAll('form[data-md-component=palette] label')]"
        ".find(label => !label.hidden).click(), 1"
    )
    assert browser.wait(f"document.body.getAttribute('data-md-color-scheme') != {scheme!r}")
    assert browser.ask(colour) != before
    assert {scheme, browser.ask("document.body.getAttribute('data-md-color-scheme')")} == {
        "default",
        "slate",
    }
    browser.ask("localStorage.clear(), 1")


def test_code_can_be_copied(visit) -> None:
    browser, address = visit
    browser.open(f"{address}/core.html")
    assert browser.wait("document.querySelectorAll('.md-code__button, .md-clipboard').length") > 5


# API blocks

SOURCE = '''
def scale(
    values,  # a comment that the docstring replaces
    factor: float = 2.0,  # 0 … 1
    *,
    mode: str = "a|b",
) -> list:
    """Scale values.

    Parameters
    ----------
    values : list of float
        What is scaled,
        in any unit.
    mode
        How.

    Returns
    -------
    list of float
        As many as came in.

    Raises
    ------
    ValueError
        If nothing came in.

    References
    ----------
    .. [1] Someone, *Scales*, 2020.

    Examples
    --------
    Twice:

    >>> scale([1.0])
    [2.0]
    """


def plain(
    x: int,  # a number
) -> int:  # the same number
    "Return it."


class Point:
    "A point."

    x: float  # to the right
    y: float = 0.0  # upwards

    def moved(self, by: float) -> "Point":
        "The point, moved."
'''


@pytest.fixture(scope="module")
def blocks() -> dict[str, str]:
    "The API blocks of `SOURCE`."
    pytest.importorskip("griffe", reason="the docs extra is not installed")
    sys.path.insert(0, str(ROOT / "tools"))
    from website.api import api_block, symbols_of

    return {symbol.name: api_block(symbol) for symbol in symbols_of(SOURCE)}


def test_sections_of_a_docstring_become_a_table_and_lists(blocks: dict[str, str]) -> None:
    text = blocks["scale"].partition("???")[0]
    rows = [
        "| Name | Type | Meaning |",
        "|---|---|---|",
        "| `values` | `list of float` | What is scaled, in any unit. |",
        '| `mode` | `str = "a|b"` | How. |'.replace('"', "'"),
        "| `factor` | `float = 2.0` | 0 … 1 |",
        "| *returns* | `list of float` | As many as came in. |",
    ]
    assert "\n".join(rows) in text
    assert "**Raises**\n\n- `ValueError`: If nothing came in." in text
    assert "**References**\n\n1. Someone, *Scales*, 2020." in text
    assert "**Examples**\n\nTwice:\n\n``` pycon\n>>> scale([1.0])\n[2.0]\n```" in text
    assert "-----" not in text and "a comment that" not in text


def test_comments_beside_parameters_become_a_table(blocks: dict[str, str]) -> None:
    assert "| `x` | `int` | a number |\n| *returns* | `int` | the same number |" in blocks["plain"]
    assert "| `y` | `float = 0.0` | upwards |" in blocks["Point"]
    assert "class Point(x: float, y: float = 0.0)" in blocks["Point"]
    assert "#### Point.moved { #Point.moved .api-member }" in blocks["Point"]
