"""The site builds without warnings or broken links, and fetches nothing from other hosts."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.docs.pages import DOCS, ROOT

FETCHING = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"?(https?://[^\" >]+)", re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_has_all_pages_and_the_api(site: Path) -> None:
    assert len(list(site.rglob("index.html"))) > 15
    document = json.loads((site / "reference" / "openapi.json").read_text())
    assert "/v1/webhooks" in document["paths"]
    assert "CloneConfig" in (site / "reference" / "library" / "index.html").read_text()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = [url for url in FETCHING.findall(page.read_text()) if "canonical" not in url]
        assert fetched == [], page


def test_scripts_that_pages_include_are_there_as_they_are(site: Path) -> None:
    included = [
        (page, ROOT / name) for page in DOCS.rglob("*.md") for name in re.findall(r'--8<-- "(.+?)"', page.read_text())
    ]
    assert len(included) >= 5
    for page, script in included:
        shown = (site / page.relative_to(DOCS).with_suffix("") / "index.html").read_text()
        text = html.unescape(re.sub(r"<[^>]+>", "", shown))
        assert script.read_text().strip() in text, (page.name, script.name)
