"""Measures a first-time user's way through the pages, from starting the service to a composed prediction.

    pytest tests/browser/test_first_path.py -s

prints the seconds of each step. The user is a program that does not read, so the times are those of the service.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.steps import add_files, ask_for_digits, choose, more_options, start_job, try_image
from tests.integration.conftest import Start

MOST = 300
"""Time limit in seconds, as the first page of the documentation promises."""


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
