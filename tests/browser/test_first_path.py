"""Measures a first-time user's way through the pages, from starting the service to a composed prediction.

    pytest tests/browser/test_first_path.py -s

prints the seconds of each step. The user is a program that does not read, so the times are those of the service.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from playwright.sync_api import expect

from tests.browser.conftest import Visit, Visitor
from tests.browser.steps import add_files, ask_for_digits, choose, drop, more_options, start_job, try_image
from tests.integration.conftest import Start

MOST = 300
"""Time limit in seconds, as the first page of the documentation promises."""


@contextmanager
def _timing(seconds: dict[str, float], step: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - began, 1)


def _add_checkpoint(visitor: Visitor, brought: Path, folder: Path, name: str) -> None:
    """Add a network from a `.th` file as old training scripts save it, and a list of its classes."""
    spec = json.loads((brought / f"{name}.json").read_text())
    state = safetensors.torch.load_file(brought / f"{name}.safetensors")
    saved = {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "epoch": 20}
    torch.save(saved, folder / f"{name}.th", _use_new_zipfile_serialization=False)
    (folder / "classes.txt").write_text("\n".join(spec["classes"]))
    page = visitor.open("/add")
    drop(page, folder / f"{name}.th", folder / "classes.txt")
    expect(page.locator(".fileline.good")).to_contain_text(f"{name}.th")
    expect(page.get_by_label("Architecture", exact=True)).to_have_value("cnn")
    page.get_by_label("Input size").fill("1 x 8 x 8")
    page.get_by_label("Mean", exact=True).fill("0.3")
    page.get_by_label("Standard deviation").fill("0.37")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".facts .badge.good").first).to_have_text(re.compile("ready"))


@pytest.mark.timeout(900)
def test_from_th_files_to_a_live_prediction_without_the_command_line(
    visit: Visit, start: Start, brought: Path, tmp_path: Path
) -> None:
    seconds: dict[str, float] = {}
    fresh = start()
    visitor = visit(url=fresh.url)
    page = visitor.page
    with _timing(seconds, "images dropped"):
        visitor.open("/datasets").locator(".dropzone input").set_input_files(brought / "digits.parquet")
        expect(page.locator("table.list")).to_contain_text("378")
    for name in ("digits-low", "digits-high"):
        with _timing(seconds, f"{name}.th added"):
            _add_checkpoint(visitor, brought, tmp_path, name)
    with _timing(seconds, "job done"):
        ask_for_digits(page, visitor)
        more_options(page)
        choose(page, "Preset", "Fast")
        start_job(page)
        expect(page.locator(".heading .badge")).to_contain_text("succeeded", timeout=600_000)
    with _timing(seconds, "live prediction"):
        page.get_by_role("link", name="Open the module").click()
        page.get_by_role("button", name="Serve this module").click()
        page.wait_for_url("**/deployments/digits-low")
        expect(page.get_by_role("switch")).to_have_attribute("aria-checked", "true")
        try_image(page, brought)
    total = round(sum(seconds.values()), 1)
    print(f"TH PATH {json.dumps({**seconds, 'total': total})}")
    assert total < MOST
    assert visitor.complaints == []


@pytest.mark.timeout(900)
def test_from_nothing_to_the_first_composed_prediction(visit: Visit, start: Start, brought: Path) -> None:
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[step] = round(time.perf_counter() - began, 1)

    with timed("service up"):
        fresh = start()
    visitor = visit(url=fresh.url)
    page = visitor.page
    with timed("networks and images uploaded and checked"):
        add_files(page, visitor, brought)
    with timed("job asked for"):
        ask_for_digits(page, visitor)
        more_options(page)
        choose(page, "Preset", "Fast")
        start_job(page)
    with timed("job done"):
        expect(page.locator(".heading .badge")).to_contain_text("succeeded", timeout=600_000)
    with timed("module attached"):
        page.get_by_role("link", name="Open the module").click()
        expect(page.locator(".matrix")).to_have_count(4)
        page.get_by_role("button", name="Serve this module").click()
        page.wait_for_url("**/deployments/digits-low")
        expect(page.get_by_role("switch")).to_have_attribute("aria-checked", "true")
    with timed("first composed prediction"):
        try_image(page, brought)
    total = round(sum(seconds.values()), 1)
    print(f"FIRST PATH {json.dumps({**seconds, 'total': total})}")
    assert total < MOST
    assert visitor.complaints == []
