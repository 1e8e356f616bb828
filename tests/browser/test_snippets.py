"""The requests that a deployment's page offers to copy are run as they stand, on an image file beside them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.integration.conftest import Up


@pytest.mark.timeout(300)
def test_every_copied_request_gets_an_answer(
    visit: Visit, filled: tuple[Up, dict[str, str]], brought: Path, tmp_path: Path
) -> None:
    service, pages = filled
    visitor = visit(url=service.url)
    page = visitor.open(pages["deployment"])
    (tmp_path / "image.png").write_bytes((brought / "seven.png").read_bytes())
    node, curl = shutil.which("node"), shutil.which("curl")
    assert node, "expected node, which runs the request in JavaScript; install it (Debian: apt install nodejs)"
    assert curl, "expected curl; install it"
    before = 'const image = new Blob([require("fs").readFileSync("image.png")]);\n(async () => {\n'
    commands = {
        "curl": lambda text: ["bash", "-c", text],
        "Python": lambda text: [sys.executable, "-c", text],
        "tritonclient": lambda text: [sys.executable, "-c", text],
        "JavaScript": lambda text: [node, "-e", f"{before}{text}\n}})();"],
    }
    parts = {"curl": "curl --data", "Python": "pnc_client", "tritonclient": "tritonclient", "JavaScript": "fetch("}
    expected = {"curl": '"classes":[{"name":"7"', "Python": "7", "tritonclient": "7", "JavaScript": "name:'7'"}
    for language, command in commands.items():
        page.get_by_role("tab", name=language).click()
        code = page.locator(".snippet code", has_text=parts[language])
        expect(code).to_be_visible()
        text = str(code.text_content())
        done = subprocess.run(command(text), cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (language, done.stderr[-2000:])
        assert expected[language] in done.stdout.replace(" ", ""), (language, done.stdout[:500])
    page.get_by_role("button", name="Copy the JavaScript request").click()
    expect(page.get_by_role("button", name="Copy the JavaScript request")).to_have_text("Copied")
    assert visitor.complaints == []
