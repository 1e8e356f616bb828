"""axe-core finds nothing serious or critical on any page, in either scheme; its report is build/axe.json."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_cache_path
from playwright.sync_api import Page, expect

from tests.browser.conftest import SCHEMES, SCREENSHOTS, Visit
from tests.browser.steps import more_options
from tests.integration.conftest import Up

VERSION = "4.14.1"
REPORT = SCREENSHOTS.parent / "axe.json"
_RUN = """() => axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations
    .filter((one) => ["serious", "critical"].includes(one.impact))
    .map((one) => ({id: one.id, impact: one.impact, help: one.help,
        nodes: one.nodes.map((node) => `${node.target.join(" ")}: ${node.failureSummary}`)})))"""


@pytest.fixture(scope="session")
def axe() -> str:
    """The text of axe-core, which npm brings into the user's cache once."""
    file = user_cache_path("pnc-zoo-tests") / f"axe-core-{VERSION}.js"
    if not file.exists():
        assert shutil.which("npm"), "expected npm, which brings axe-core; install it (Debian: apt install npm)"
        file.parent.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", f"axe-core@{VERSION}"]
        packed = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=True, timeout=300)
        archive = file.parent / packed.stdout.strip().splitlines()[-1]
        with tarfile.open(archive) as tar:
            script = tar.extractfile("package/axe.min.js")
            assert script is not None
            file.write_bytes(script.read())
        archive.unlink()
    return file.read_text()


def faults(page: Page, axe: str) -> list[dict[str, Any]]:
    """Serious and critical faults of a page as it is now."""
    page.evaluate(axe)
    found: list[dict[str, Any]] = page.evaluate(_RUN)
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.timeout(900)
def test_axe_finds_nothing_serious_on_any_page(
    visit: Visit, filled: tuple[Up, dict[str, str]], axe: str, scheme: str
) -> None:
    service, pages = filled
    visitor = visit(1280, scheme, service.url)
    report = {}
    for name, path in {**pages, "nowhere": "/nowhere", "missing": "/models/nowhere", "sign-in": "/sign-in"}.items():
        page = visitor.open(path)
        page.wait_for_timeout(700)
        if name == "new-job":
            more_options(page)
        if name == "deployment":
            page.get_by_role("tab", name="Python").click()
            expect(page.locator(".snippet", has_text="pnc_client")).to_be_visible()
        report[name] = faults(page, axe)
    _keep(scheme, report)
    assert {name: found for name, found in report.items() if found} == {}


def _keep(scheme: str, report: dict[str, Any]) -> None:
    """Write a scheme's faults to the report, beside those of the other scheme."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(Path(REPORT).read_text()) if REPORT.exists() else {}
    REPORT.write_text(json.dumps({**known, scheme: report}, indent=1))
