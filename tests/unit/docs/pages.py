"""The pages of the documentation, and what they print."""

import re
from pathlib import Path

from mktestdocs.__main__ import grab_code_blocks

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


def block(page: Path, name: str) -> str:
    """The code behind `<!-- run: name -->`."""
    found = re.search(rf"<!-- run: {name} -->\n```\w+\n(.*?)```", page.read_text(), re.DOTALL)
    assert found is not None, f"{page}: {name}"
    return found[1]


def blocks(page: Path, language: str) -> list[str]:
    """All blocks of a language, in order."""
    found: list[str] = grab_code_blocks(page.read_text(), lang=language)
    return found


def lines(page: Path) -> list[str]:
    """Commands that a reader would type, a continued one as one line, without comments."""
    typed = [line for code in blocks(page, "bash") for line in code.replace("\\\n", " ").splitlines()]
    shown = [line.strip() for code in blocks(page, "console") for line in code.replace("\\\n", " ").splitlines()]
    return typed + [line[2:] for line in shown if line.startswith("$ ")]
