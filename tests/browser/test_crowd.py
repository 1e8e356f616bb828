"""The pages stay fast with thousands of models and jobs."""

import statistics
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from app.db import engine
from app.settings import Settings
from app.zoo import open_zoo
from tests.browser.conftest import Visit
from tests.integration.conftest import Up, start_service, stop_service
from tests.unit.crowds import crowd

MODELS, JOBS = 5_000, 20_000
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
MOST = 1000
"""Milliseconds to the first paint."""


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A service with many models and ended jobs, so that its worker is idle."""
    data_dir = tmp_path_factory.mktemp("crowd") / "data"
    zoo = open_zoo(Settings(data_dir=data_dir))
    engine.migrate(zoo.database)
    with zoo.database.write() as session:
        crowd(session, MODELS, JOBS, states=("succeeded", "failed", "cancelled", "cancelled", "failed"))
    zoo.close()
    service = start_service(data_dir)
    yield service
    stop_service(service)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", ["/", "/jobs", "/modules", "/models/net-000007", "/jobs/job_000000", "/new"])
def test_the_first_paint_comes_within_a_second(visit: Visit, crowded: Up, path: str) -> None:
    visitor = visit(url=crowded.url)
    visitor.open("/datasets")  # fills the browser's cache with the scripts
    paints = []
    for _ in range(5):
        page = visitor.open(path)
        page.wait_for_function(f"{FIRST_PAINT} !== undefined")
        paints.append(page.evaluate(FIRST_PAINT))
    print(f"{path}: {min(paints):.0f} ms to the first paint, median {statistics.median(paints):.0f}")
    assert statistics.median(paints) < MOST


def test_a_search_changes_the_list_as_one_types(visit: Visit, crowded: Up) -> None:
    page = visit(url=crowded.url).open("/")
    expect(page.get_by_text("1 to 25 of 5,000 models")).to_be_visible()
    page.get_by_label("Search models").fill("0042")
    expect(page.get_by_text("1 to 25 of 111 models")).to_be_visible()
    assert page.url.endswith("?search=0042")
    page.reload()
    expect(page.get_by_text("1 to 25 of 111 models")).to_be_visible()


def test_pages_are_turned(visit: Visit, crowded: Up) -> None:
    page = visit(url=crowded.url).open("/jobs?state=failed")
    expect(page.get_by_text("1 to 25 of 8,000 jobs")).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("26 to 50 of 8,000 jobs")).to_be_visible()
