"""Every relative link, anchor and picture of the documentation leads to something that exists."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown.extensions.toc import slugify, unique
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.unit.docs import pages
from tests.unit.docs.pages import DOCS, ROOT

PAGES = [*pages.PAGES, ROOT / "CHANGELOG.md"]
SCREENSHOTS = DOCS / "screenshots"
SCHEMES = {"only-light", "only-dark"}
"""Fragments of pictures that Material shows in one colour scheme only."""
BUILT = {DOCS / "reference" / "openapi.json"}
"""Files that are not in the repository: `docs/site.py` adds them when the site is built."""
IN_HTML = re.compile(r'(?:src|srcset|href)="([^"]+)"')
NAMED_FILE = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|yml|txt|toml|ipynb))`")
FOLDERS = (ROOT, ROOT / "pnc_core")
"""Where the pages' names of files start; `method.md` names files of `pnc_core/`."""


@cache
def _tokens(page: Path) -> list[Token]:
    return list(_flat(MarkdownIt("commonmark").enable("table").parse(page.read_text())))


def _flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _flat(token.children or [])


def _addresses(page: Path) -> Iterator[str]:
    for token in _tokens(page):
        for name in ("href", "src"):
            if name in token.attrs:
                yield str(token.attrs[name])
        if token.type in ("html_block", "html_inline"):
            yield from IN_HTML.findall(token.content)


def _relative(page: Path) -> list[tuple[Path, str]]:
    """File and fragment of every address that stays within the repository."""
    kept = (address for address in _addresses(page) if not re.match(r"[a-z]+:", address))
    parts = (address.partition("#") for address in kept)
    return [((page.parent / unquote(path)).resolve() if path else page, fragment) for path, _, fragment in parts]


@cache
def _headings(page: Path) -> frozenset[str]:
    """Anchors of the headings; one that the site and the repository's host would name differently is left out."""
    tokens, taken, hosts = _tokens(page), set[str](), set[str]()
    for heading, content in pairwise(tokens):
        if heading.type == "heading_open":
            pieces = (child.content for child in content.children or [] if child.type in ("text", "code_inline"))
            text = "".join(pieces)
            unique(slugify(text, "-"), taken)
            hosts.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return frozenset(taken & hosts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_picture_leads_to_a_file(page: Path) -> None:
    missing = [str(file.relative_to(ROOT)) for file, _ in _relative(page) if not file.exists() and file not in BUILT]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_anchor_is_a_heading(page: Path) -> None:
    anchors = [(file, anchor) for file, anchor in _relative(page) if anchor and file.suffix == ".md"]
    assert [f"{file.name}#{anchor}" for file, anchor in anchors if anchor not in _headings(file)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_named_file_exists(page: Path) -> None:
    names = [match for token in _tokens(page) if token.content for match in NAMED_FILE.findall(token.content)]
    assert [name for name in names if not any((folder / name).exists() for folder in FOLDERS)] == []


def test_a_picture_for_one_scheme_has_its_twin_for_the_other() -> None:
    for page in PAGES:
        shown = [(file.name, scheme) for file, scheme in _relative(page) if scheme in SCHEMES]
        for name, scheme in shown:
            own, other = ("light", "dark") if scheme == "only-light" else ("dark", "light")
            assert own in name, f"{page.name}: {name}#{scheme}"
            assert (name.replace(own, other), f"only-{other}") in shown, f"{page.name}: {name}"


def test_every_screenshot_is_shown() -> None:
    shown = {file for page in PAGES for file, _ in _relative(page)}
    assert [path.name for path in sorted(SCREENSHOTS.glob("*.png")) if path not in shown] == []


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '# One, `two`\n\n[x](#one-two) ![y](no.png#only-dark) <img src="none.png"> [z](https://example.org)\n'
    )
    assert _relative(page) == [(page, "one-two"), (tmp_path / "no.png", "only-dark"), (tmp_path / "none.png", "")]
    assert _headings(page) == {"one-two"}
