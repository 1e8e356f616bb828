"""A user's actions on the pages, one function per action."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitor


def drop(page: Page, *files: Path) -> None:
    """Drop files on the page that adds a model."""
    page.locator(".dropzone input").set_input_files(files)


def add_model(visitor: Visitor, brought: Path, name: str) -> None:
    """Add a model from its weights and its description, and wait until a worker has tried it."""
    page = visitor.open("/add")
    drop(page, brought / f"{name}.safetensors", brought / f"{name}.json")
    expect(page.locator(".fileline.good")).to_contain_text(f"{name}.safetensors")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".facts .badge.good").first).to_have_text(re.compile("ready"))


def add_files(page: Page, visitor: Visitor, brought: Path) -> None:
    """Add both networks and the images."""
    visitor.open("/")
    expect(page.get_by_text("No models yet")).to_be_visible()
    for name in ("digits-low", "digits-high"):
        add_model(visitor, brought, name)
    visitor.open("/")
    expect(page.locator("table.list .badge.good")).to_have_count(2)
    visitor.open("/datasets").locator(".dropzone input").set_input_files(brought / "digits.parquet")
    expect(page.locator("table.list")).to_contain_text("378")


def choose(page: Page, label: str, text: str) -> None:
    """Choose one entry of a list."""
    page.get_by_role("combobox", name=label).click()
    page.locator(".q-menu .q-item", has_text=text).first.click()


def ask_for_digits(page: Page, visitor: Visitor) -> None:
    """Ask for a job that teaches the first network 7, 8 and 9; source and dataset are proposed. Does not start it."""
    visitor.open("/models/digits-low")
    page.get_by_role("link", name="Teach it classes").click()
    expect(page.get_by_role("button", name="Start the job")).to_be_disabled()
    for digit in "789":
        page.get_by_role("checkbox", name=re.compile(f"^{digit} ")).click()
    expect(page.get_by_role("combobox", name="Source: has the classes")).to_have_value("digits-high")
    expect(page.get_by_role("combobox", name="Dataset: images of both")).to_have_value(re.compile("^digits"))
    expect(page.get_by_text("This job would be accepted.")).to_be_visible()


def more_options(page: Page) -> None:
    """Unfold the options of a new job."""
    page.get_by_text("More options").click()
    expect(page.get_by_label("Seed")).to_be_visible()


def start_job(page: Page) -> None:
    """Start the job and wait for its page."""
    page.get_by_role("button", name="Start the job").click()
    page.wait_for_url("**/jobs/job_*")


def try_image(page: Page, brought: Path) -> None:
    """Predict an image of a seven; the module must give the right class."""
    page.locator(".dropzone input").set_input_files(brought / "seven.png")
    expect(page.locator(".tried h3").last).to_have_text("With 1 module: 7")
