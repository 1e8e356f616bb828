"""A new job: choose a target and classes; source and dataset are proposed, and the accuracy is forecast."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect

from app.demo import png
from pnc_client import Client
from pnc_client.parquet import write_parquet
from pnc_core.config import NetworkSpec
from tests.browser.conftest import SCHEMES, SCREENSHOTS, Visit
from tests.browser.steps import choose, more_options
from tests.integration.conftest import Up, start_service, stop_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, brought: Path) -> Iterator[Up]:
    """Two networks with their images, and newer images of other things."""
    service = start_service(tmp_path_factory.mktemp("asking") / "data")
    with Client(service.url) as client:
        for name in ("digits-low", "digits-high"):
            spec = NetworkSpec(**json.loads((brought / f"{name}.json").read_text()))
            client.models.push(name, spec, brought / f"{name}.safetensors").wait()
        client.datasets.push(brought / "digits.parquet", name="digits")
        grey = png(torch.zeros(1, 8, 8, dtype=torch.uint8))
        write_parquet(brought / "other.parquet", [("cloud", grey)] * 60, ("cloud",))
        client.datasets.push(brought / "other.parquet", name="newest")
    yield service
    assert stop_service(service) == 0


def test_source_and_dataset_are_proposed_from_the_classes(visit: Visit, service: Up) -> None:
    visitor = visit()
    page = visitor.open("/new?target=digits-low")
    data = page.get_by_role("combobox", name="Dataset: images of both")
    expect(data).to_have_value("")
    page.get_by_label("Search classes").fill("8")
    expect(page.locator(".ticks .q-checkbox")).to_have_count(1)
    page.get_by_role("checkbox", name="8 (of digits-high)").click()
    expect(page.get_by_role("combobox", name="Source: has the classes")).to_have_value("digits-high")
    expect(page.get_by_text("Proposed: it has this class")).to_be_visible()
    expect(data).to_have_value(re.compile("^digits "))
    expect(page.get_by_text("This job would be accepted.")).to_be_visible()
    choose(page, "Dataset: images of both", "newest")
    expect(page.locator(".problem").first).to_contain_text("expected at least")
    expect(page.get_by_role("button", name="Start the job")).to_be_disabled()
    assert visitor.complaints == []


def test_the_accuracy_is_forecast_with_its_interval(visit: Visit, service: Up) -> None:
    visitor = visit()
    page = visitor.open("/new?target=digits-low")
    for digit in "789":
        page.get_by_role("checkbox", name=re.compile(f"^{digit} ")).click()
    expect(page.get_by_text("This job would be accepted.")).to_be_visible()
    page.get_by_role("button", name="Forecast accuracy and time").click()
    forecast = page.locator("section", has_text="With four times the images")
    expect(forecast).to_contain_text(re.compile(r"Accuracy\s*9\d\.\d % \(\d+ to \d+ %\)"))
    expect(forecast).to_contain_text("on this machine")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=SCREENSHOTS / f"new-job-forecast-{scheme}-1280.png", full_page=True)
    assert visitor.complaints == []


@pytest.mark.parametrize("width", [1280, 390])
def test_no_option_is_cut_and_each_says_why(visit: Visit, service: Up, width: int) -> None:
    visitor = visit(width)
    page = visitor.open("/new?target=digits-low")
    more_options(page)
    cut = page.evaluate(_CUT)
    assert cut == []
    helps = page.locator(".options .help").all_inner_texts()
    assert len(helps) == 13
    assert all(re.search(r"\.( \(.+\))?$", text) and len(text) > 30 for text in helps)
    page.screenshot(path=SCREENSHOTS / f"{width}-new-job-options.png", full_page=True)
    assert visitor.complaints == []


_CUT = """() => [".q-field__label", ".q-field__native", ".q-toggle__label"]
    .flatMap((name) => [...document.querySelectorAll(`.options ${name}`)])
    .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent)"""
