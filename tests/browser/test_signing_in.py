"""With required keys a browser signs in and sees only its own workspace; foreign input is shown as text."""

import json
import subprocess
import sys
from pathlib import Path

from pnc_client import Client
from tests.browser.conftest import SCHEMES, SCREENSHOTS, Visit
from tests.integration.conftest import start_service, stop_service

PAYLOAD = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


def key_of(home: Path) -> str:
    """Create the first key on the service's machine."""
    command = [sys.executable, "-m", "app.cli", "keys", "create", "me", "--here", "-s", "admin", "--json"]
    done = subprocess.run([*command, "--data-dir", str(home)], capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout)["secret"])


def test_a_visitor_signs_in_and_what_strangers_typed_stays_text(visit: Visit, tmp_path: Path) -> None:
    secret = key_of(tmp_path / "data")
    service = start_service(tmp_path / "data", PNC_REQUIRE_KEYS="true")
    try:
        with Client(service.url, key=secret) as client:
            client.models.create("odd", description=PAYLOAD)
        visitor = visit(url=service.url)
        page = visitor.page
        page.goto(service.url + "/models/odd")
        assert page.url.endswith("/sign-in")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=SCREENSHOTS / f"sign-in-{scheme}-1280.png")
        page.emulate_media(color_scheme="light")
        page.fill("#key", secret)
        page.click("button[type=submit]")
        page.wait_for_url(service.url + "/")
        assert page.locator("text=odd").first.is_visible()
        assert page.locator("img[src=x]").count() == 0
        visitor.open("/models/odd")
        assert "<script>" in page.locator("#content").inner_text()
        assert page.title() != "run"
        (cookie,) = [c for c in page.context.cookies() if c["name"] == "pnc-key"]
        assert (cookie["httpOnly"], cookie["sameSite"], secret in cookie["value"]) == (True, "Strict", False)
        assert visitor.complaints == []
    finally:
        assert stop_service(service) == 0
