"""The pages that list codes and words say what the code says."""

import inspect
import re
from types import ModuleType

import pytest

from app import errors
from app.api.problems import status_of
from app.web.words import WORDS
from pnc_core import errors as library
from tests.unit.docs.pages import DOCS


def _rows(page: str) -> dict[str, list[str]]:
    """Cells of the page's tables, by their first cell."""
    lines = (DOCS / page).read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]
    return {row[0].strip("`"): row[1:] for row in cells}


def _kinds(module: ModuleType, base: type[Exception]) -> list[type[Exception]]:
    return [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, base) and kind != base]


SERVICE = _kinds(errors, errors.ZooError)
LIBRARY = [kind for kind in _kinds(library, library.PncError) if kind.code not in {own.code for own in SERVICE}]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [*SERVICE, *LIBRARY], ids=lambda kind: kind.__name__)
def test_the_page_has_every_code_with_its_status_and_meaning(kind: type[Exception]) -> None:
    status, meaning, remedy = _rows("troubleshooting.md")[kind.code]  # type: ignore[attr-defined]
    assert status == (str(status_of(kind)) if issubclass(kind, errors.ZooError) else "")
    assert (kind.__doc__ or "").startswith(meaning)
    assert len(remedy) > 10


def test_the_page_has_no_other_code() -> None:
    text = (DOCS / "troubleshooting.md").read_text().partition("## By code")[2]
    named = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert named == {kind.code for kind in (*SERVICE, *LIBRARY)}  # type: ignore[attr-defined]


def test_the_glossary_has_the_sentences_of_the_pages() -> None:
    rows = _rows("glossary.md")
    assert {word: rows[word][0] for word in WORDS} == WORDS
