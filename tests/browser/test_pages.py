"""Every page of a filled zoo, light and dark, wide and narrow: no page is wider than its window.

Writes a screenshot of each to build/screenshots.
"""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from pnc_client import Client
from tests.browser.conftest import SCHEMES, SCREENSHOTS, WIDTHS, Visit
from tests.integration.conftest import Up


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.timeout(600)
def test_every_page_fits_its_window(
    visit: Visit, filled: tuple[Up, dict[str, str]], brought: Path, width: int, scheme: str
) -> None:
    service, pages = filled
    visitor = visit(width, scheme, service.url)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name, path in pages.items():
        page = visitor.open(path)
        if name == "deployment":
            page.locator(".dropzone input").set_input_files(brought / "seven.png")
            expect(page.locator(".tried h3")).to_have_count(2)
        if name == "new-job":
            page.get_by_role("checkbox", name=re.compile("^7 ")).click()
            expect(page.get_by_role("combobox", name="Source: has the classes")).not_to_have_value("")
            expect(page.get_by_text("This job would be accepted.")).to_be_visible()
        page.wait_for_timeout(1000)  # until Quasar's activity bar has disappeared
        page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}-{width}.png", full_page=True)
        beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert beyond <= 0, f"{name} is {beyond} pixels wider than a window of {width}"
    assert visitor.complaints == []


@pytest.mark.timeout(300)
def test_models_are_told_by_their_accuracy(visit: Visit, filled: tuple[Up, dict[str, str]]) -> None:
    service, _ = filled
    with Client(service.url) as client:
        accuracies = {model.name: client.models.version(model.name, 1).accuracy for model in client.models.list()}
    unknown = sorted(name for name, accuracy in accuracies.items() if accuracy is None)  # not checked on images yet
    known = {name: accuracy for name, accuracy in accuracies.items() if accuracy is not None}
    assert known
    visitor = visit(url=service.url)
    page = visitor.open("/?order=accurate")
    names = page.locator("table.list tbody td:first-child a").all_inner_texts()
    assert names == [*sorted(known, key=lambda name: -known[name]), *unknown]
    assert min(known.values()) > 0.9
    for name, accuracy in known.items():
        expect(page.locator("tr", has_text=name)).to_contain_text(f"{100 * accuracy:.1f} %")
    assert visitor.complaints == []


@pytest.mark.timeout(300)
def test_a_card_is_written_on_the_page(visit: Visit, filled: tuple[Up, dict[str, str]]) -> None:
    service, _ = filled
    visitor = visit(url=service.url)
    page = visitor.open("/models/digits-even")
    expect(page.get_by_role("heading", name="Trained on")).to_be_visible()
    page.get_by_role("button", name="Edit the card").click()
    dialog = page.get_by_role("dialog", name="Edit the card")
    dialog.get_by_label("Card").fill("Even digits\n\n## Made for\n\n- looking *around*\n")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Made for")).to_be_visible()
    expect(page.locator(".prose li em")).to_have_text("around")
    expect(page.locator(".heading .note")).to_contain_text("Even digits")
    assert visitor.complaints == []


def test_a_narrow_screen_shows_events_early_and_compares_in_pairs(
    visit: Visit, filled: tuple[Up, dict[str, str]]
) -> None:
    service, pages = filled
    visitor = visit(390, url=service.url)
    page = visitor.open(pages["job"])
    events = page.locator(".part-events").bounding_box()
    curve = page.locator(".part-curve").bounding_box()
    assert events is not None
    assert curve is not None
    assert events["y"] < min(curve["y"], 4000)
    page = visitor.open(pages["compare"])
    first, second = (cell.bounding_box() for cell in page.locator("tr.differs").first.locator("td[data-label]").all())
    assert first is not None
    assert second is not None
    assert (first["y"], first["x"] < second["x"]) == (second["y"], True)
    assert visitor.complaints == []
