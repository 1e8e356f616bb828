"""A canary is started, changed, promoted and ended on a deployment's page."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from pnc_client import Client
from tests.browser.conftest import SCHEMES, SCREENSHOTS, WIDTHS, Visit
from tests.browser.steps import choose
from tests.browser.test_accessibility import axe, faults  # noqa: F401 - axe is a fixture
from tests.integration.conftest import Up


@pytest.fixture
def deployment(filled: tuple[Up, dict[str, str]]) -> Iterator[str]:
    """A deployment of the target alone, with a name of its own; its module fits."""
    with Client(filled[0].url) as client:
        client.deployments.create("tried", "digits-low")
        yield "tried"
        client.deployments.delete("tried")


def card(page: Page) -> Locator:
    return page.locator("section.card", has=page.get_by_role("heading", name="Canary", exact=True))


@pytest.mark.timeout(600)
def test_a_canary_goes_its_way(visit: Visit, filled: tuple[Up, dict[str, str]], deployment: str, brought: Path) -> None:
    service, _ = filled
    seven = (brought / "seven.png").read_bytes()
    visitor = visit(url=service.url)
    page = visitor.open(f"/deployments/{deployment}")
    canary = card(page)
    expect(canary).to_contain_text("No canary runs")
    canary.get_by_role("combobox", name="Modules of the canary").click()
    page.locator(".q-menu .q-item", has_text="7, 8, 9").first.click()
    page.keyboard.press("Escape")
    canary.get_by_label("Share in percent").fill("")
    canary.get_by_role("button", name="Start").click()
    expect(page.get_by_text("expected a share from 0 to 100 percent")).to_be_visible()
    canary.get_by_label("Share in percent").fill("100")
    choose(page, "Mode of the canary", "Shadow")
    canary.get_by_role("button", name="Start").click()
    expect(canary.locator(".badge", has_text="shadow")).to_be_visible()
    with Client(service.url) as client:
        for _ in range(10):
            assert client.deployments.predict(deployment, seven).module_set == "main"
        expect(canary).to_contain_text("10 by the attached modules, 0 by the canary")
        expect(canary).to_contain_text("0 images agree, 10 differ")  # the target alone knows no 7
        page.locator(".dropzone input").set_input_files(brought / "seven.png")
        expect(page.locator(".tried h3")).to_have_count(3)
        expect(page.locator(".tried h3").last).to_have_text("Canary: 7")
        choose(page, "Mode of the canary", "Answers the share")
        canary.get_by_role("button", name="Change").click()
        expect(canary.locator(".badge", has_text="canary")).to_be_visible()
        assert client.deployments.predict(deployment, seven).module_set == "canary"
        expect(canary).to_contain_text("10 by the attached modules, 1 by the canary")
    canary.get_by_role("button", name="Promote").click()
    expect(canary).to_contain_text("No canary runs")
    expect(page.get_by_role("switch", name=re.compile("^Attach mod_")).first).to_be_checked()
    assert visitor.complaints == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.timeout(600)
def test_the_page_with_a_canary_fits_its_window_and_axe_finds_nothing_serious(
    visit: Visit,
    filled: tuple[Up, dict[str, str]],
    deployment: str,
    brought: Path,
    axe: str,  # noqa: F811
    width: int,
    scheme: str,
) -> None:
    service, pages = filled
    with Client(service.url) as client:
        module = pages["module"].rpartition("/")[2]
        client.deployments.put_canary(deployment, [module], share=0.5)
        for _ in range(20):
            client.deployments.predict(deployment, brought / "seven.png")
    visitor = visit(width, scheme, service.url)
    page = visitor.open(f"/deployments/{deployment}")
    expect(card(page)).to_contain_text("differ")
    expect(page.get_by_role("img", name=re.compile("^Last hour: "))).to_be_visible()
    page.locator(".dropzone input").set_input_files(brought / "seven.png")
    expect(page.locator(".tried h3")).to_have_count(3)
    page.wait_for_timeout(1000)  # until Quasar's activity bar has disappeared
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS.parent / f"canary-{scheme}-{width}.png", full_page=True)
    assert faults(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert visitor.complaints == []
