"""A user's way through the pages, from two files to a composed network that answers, and back."""

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from app.client import Client
from pnc_core.config import NetworkSpec
from tests.browser.conftest import SCHEMES, SCREENSHOTS, WIDTHS, Visit, Visitor
from tests.browser.steps import add_files, ask_for_digits, choose, start_job, try_image
from tests.integration.conftest import Up


def _start_job(page: Page, visitor: Visitor) -> None:
    """With a mistake in between, which keeps it from being started."""
    start = page.get_by_role("button", name="Start the job")
    ask_for_digits(page, visitor)
    page.get_by_label("Share of the tail that is kept").fill("7")
    expect(page.locator(".problem")).to_contain_text("keep")
    expect(start).to_be_disabled()
    page.get_by_label("Share of the tail that is kept").fill("0.5")
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
    page.screenshot(path=SCREENSHOTS / "job-running-light-1280.png")
    expect(page.locator(".heading .badge")).to_contain_text("succeeded", timeout=300_000)
    expect(page.locator("svg.curve .chosen")).to_have_count(1)
    page.get_by_role("link", name="Open the module").click()
    expect(page.locator(".mask").first).to_be_visible()
    with page.expect_download() as downloading:
        page.get_by_role("link", name=re.compile("Download thin")).click()
    assert downloading.value.path().stat().st_size > 1000
    page.get_by_role("button", name="Serve with it").click()
    page.wait_for_url("**/deployments/digits-low")
    switch = page.get_by_role("switch")
    expect(switch).to_have_attribute("aria-checked", "true")
    try_image(page, brought)
    expect(page.locator(".tried h3").first).not_to_contain_text("7")
    switch.click()
    expect(page.locator(".tried h3").last).to_contain_text("none attached")
    answers = page.locator(".tried .bars")
    assert answers.first.inner_text() == answers.last.inner_text()
    page.get_by_role("button", name="Bring back generation 2").click()
    expect(page.locator(".tried h3").last).to_have_text("With 1 module: 7")
    expect(page.locator(".heading .note")).to_contain_text("generation 4")
    assert visitor.complaints == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.timeout(300)
def test_every_page_fits_its_window(visit: Visit, service: Up, brought: Path, width: int, scheme: str) -> None:
    """Runs behind the journey, on what it has left; the pictures are for people to look at."""
    visitor = visit(width, scheme)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name, path in _pages(visitor).items():
        page = visitor.open(path)
        if name == "deployment":
            page.locator("input[type=file]").set_input_files(brought / "seven.png")
            expect(page.locator(".tried h3")).to_have_count(2)
        if name == "new-job":
            choose(page, "Source: has the classes", "digits-high")
            page.get_by_role("checkbox", name=re.compile("^7 ")).click()
            expect(page.get_by_text("This job would be accepted.")).to_be_visible()
        page.wait_for_timeout(300)
        page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}-{width}.png", full_page=True)
        beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert beyond <= 0, f"{name} is {beyond} pixels wider than a window of {width}"
    assert visitor.complaints == []


def _pages(visitor: Visitor) -> dict[str, str]:
    def first(path: str) -> str:
        found = visitor.open(path).locator("table.list td a").first.get_attribute("href")
        assert found is not None
        return found

    job, module = first("/jobs"), first("/modules")
    return {
        "models": "/",
        "model": "/models/digits-low",
        "datasets": "/datasets",
        "jobs": "/jobs",
        "new-job": "/new?target=digits-low",
        "job": job,
        "modules": "/modules",
        "module": module,
        "deployments": "/deployments",
        "deployment": "/deployments/digits-low",
        "compare": f"/compare?a={job.rpartition('/')[2]}&b={job.rpartition('/')[2]}",
    }


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
    expect(page.get_by_role("button", name="Add a model")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Add a model")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Add a model")).to_have_count(0)


def test_what_is_not_there_says_so(visit: Visit, service: Up) -> None:
    page = visit().page
    answer = page.goto(service.url + "/jobs/job_none")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_text("expected a cloning job, got none")).to_be_visible()


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
