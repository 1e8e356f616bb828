"""A user's way through the pages, from two files to a composed network that answers, and back."""

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from pnc_client import Client
from pnc_core.config import NetworkSpec
from tests.browser.conftest import SCHEMES, SCREENSHOTS, Visit, Visitor
from tests.browser.steps import add_files, ask_for_digits, more_options, start_job, try_image
from tests.integration.conftest import Up


def _start_job(page: Page, visitor: Visitor) -> None:
    """Start a job; a mistake in the form disables the start until it is corrected."""
    start = page.get_by_role("button", name="Start the job")
    ask_for_digits(page, visitor)
    more_options(page)
    page.get_by_label("Kept share of the cloned layers' parameters").fill("7")
    expect(page.locator(".problem")).to_contain_text("keep")
    expect(start).to_be_disabled()
    page.get_by_label("Kept share of the cloned layers' parameters").fill("0.5")
    expect(start).to_be_enabled()
    start_job(page)


@pytest.mark.timeout(900)
def test_from_two_files_to_an_answer_and_back(visit: Visit, service: Up, brought: Path) -> None:
    visitor = visit()
    page = visitor.page
    add_files(page, visitor, brought)
    _start_job(page, visitor)
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    expect(page.locator("svg.curve circle").nth(4)).to_be_visible(timeout=300_000)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=SCREENSHOTS / f"job-running-{scheme}-1280.png")
    expect(page.locator(".heading .badge")).to_contain_text("succeeded", timeout=300_000)
    expect(page.locator("svg.curve .chosen")).to_have_count(1)
    page.get_by_role("link", name="Open the module").click()
    expect(page.locator(".mask").first).to_be_visible()
    with page.expect_download() as downloading:
        page.get_by_role("link", name=re.compile("Download thin")).click()
    assert downloading.value.path().stat().st_size > 1000
    page.get_by_role("button", name="Serve this module").click()
    page.wait_for_url("**/deployments/digits-low")
    switch = page.get_by_role("switch")
    expect(switch).to_have_attribute("aria-checked", "true")
    try_image(page, brought)
    expect(page.locator(".tried h3").first).not_to_contain_text("7")
    switch.click()
    expect(page.locator(".tried h3").last).to_contain_text("none attached")
    answers = page.locator(".tried .bars")
    assert answers.first.inner_text() == answers.last.inner_text()
    page.get_by_role("button", name="Restore generation 2").click()
    expect(page.locator(".tried h3").last).to_have_text("With 1 module: 7")
    expect(page.locator(".heading .note")).to_contain_text("generation 4")
    assert visitor.complaints == []


def test_light_and_dark_are_kept(visit: Visit, service: Up) -> None:
    visitor = visit()
    page = visitor.open("/")
    expect(page.locator("body")).not_to_have_class(re.compile("body--dark"))
    page.get_by_role("button", name="Switch between light and dark").click()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))
    visitor.open("/jobs")
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))


def test_the_pages_can_be_used_from_the_keyboard(visit: Visit, service: Up) -> None:
    page = visit().open("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Add a model")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/add")
    expect(page.get_by_role("heading", name="Add a model")).to_be_visible()


def test_what_is_not_there_says_so(visit: Visit, service: Up) -> None:
    page = visit().page
    answer = page.goto(service.url + "/jobs/job_none")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", name="This job does not exist")).to_be_visible()


def test_names_are_text_in_the_browser_too(visit: Visit, service: Up, brought: Path) -> None:
    script = "<img src=x onerror=\"document.title='taken'\"></script><script>document.title='taken'</script>`${1}`"
    spec = NetworkSpec(**json.loads((brought / "digits-low.json").read_text()))
    hostile = replace(spec, classes=(script[:120], *spec.classes[1:]))
    with Client(service.url) as client:
        client.models.push("hostile", hostile, brought / "digits-low.safetensors", description=script).wait()
    visitor = visit()
    for path in (
        "/",
        "/models/hostile",
        "/new?source=hostile",
        f"/?search={quote(script)}",
        f"/compare?a={quote(script)}&b=1",
    ):
        page = visitor.open(path)
        page.wait_for_timeout(300)
        assert page.locator("main img").count() == 0
        assert page.title() != "taken"
    assert visitor.complaints == []
