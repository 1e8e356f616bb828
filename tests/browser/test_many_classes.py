"""A version of a thousand classes: the pages show ten of them, and a search finds the others."""

from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import expect

from app.db import engine
from app.demo import png
from app.models import service as models
from app.settings import Settings
from app.zoo import open_zoo
from pnc_client import Client
from pnc_client.parquet import write_parquet
from tests.browser.conftest import SCREENSHOTS, Visit
from tests.browser.steps import choose
from tests.integration.conftest import Up, start_service, stop_service
from tests.unit import seeds

FISH = tuple(f"fish {n}, Piscis {n}" for n in range(1000))


@pytest.fixture(scope="module")
def fishy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A service with a source of a thousand classes and a target of five."""
    data_dir = tmp_path_factory.mktemp("fish") / "data"
    zoo = open_zoo(Settings(data_dir=data_dir))
    engine.migrate(zoo.database)
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low", seeds.LOW, value=1)
        seeds.version(session, zoo, "fish", FISH, value=2)
        models.set_alias(session, "fish", "production", 1)
    zoo.close()
    service = start_service(data_dir)
    classes, noise = (*seeds.LOW, *FISH), torch.Generator().manual_seed(0)
    images = torch.randint(256, (len(classes), 1, 8, 8), generator=noise, dtype=torch.uint8)
    rows = [(png(image), label) for label, image in enumerate(images)]  # the worker decodes them, and counts again
    write_parquet(data_dir.parent / "fish.parquet", rows, classes)
    with Client(service.url) as client:
        client.datasets.wait(client.datasets.push(data_dir.parent / "fish.parquet").id)
    yield service
    stop_service(service)


def test_a_models_page_searches_its_classes(visit: Visit, fishy: Up) -> None:
    visitor = visit(url=fishy.url)
    page = visitor.open("/models/fish")
    expect(page.get_by_text("10 of 1,000 classes")).to_be_visible()
    page.get_by_label("Search classes").fill("piscis 77")
    expect(page.get_by_text("10 of 19 classes that hold 'piscis 77'")).to_be_visible()
    expect(page.locator("table.list tr", has_text="fish 770, Piscis 770")).to_contain_text("#770")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "classes.png", full_page=True)
    page.get_by_label("Search classes").fill("#12")
    expect(page.locator("table.list tr", has_text="fish 12, Piscis 12")).to_be_visible()
    assert visitor.complaints == []


def test_the_form_finds_classes_by_search_and_by_name(visit: Visit, fishy: Up) -> None:
    visitor = visit(url=fishy.url)
    page = visitor.open("/new?source=fish&target=low")
    expect(page.get_by_role("checkbox", name="fish 0, Piscis 0")).to_be_visible()
    assert page.locator(".ticks .q-checkbox").count() == 10
    field = page.get_by_label("Search classes")
    field.fill("fish 77")
    expect(page.get_by_text("10 of 19 classes that hold 'fish 77'")).to_be_visible()
    page.get_by_role("checkbox", name="fish 770, Piscis 770").click()
    field.fill("Piscis 5; #6")
    field.press("Enter")
    expect(page.locator(".q-chip")).to_have_count(3)
    expect(page.get_by_text("This job would be accepted.")).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "classes-form.png", full_page=True)
    field.fill("fsh 5, piscis 5")
    field.press("Enter")
    expect(page.get_by_text("did you mean 'fish 5, Piscis 5'")).to_be_visible()
    page.locator(".q-chip", has_text="fish 5, Piscis 5").locator(".q-chip__icon--remove").click()
    expect(page.locator(".q-chip")).to_have_count(2)
    choose(page, "Source: has the classes", "low")
    expect(page.locator(".ticks .q-checkbox")).to_have_count(5)
    expect(page.locator(".q-chip")).to_have_count(0)
    assert visitor.complaints == []
