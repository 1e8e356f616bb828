"""What a user does on the pages, one step a function."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitor


def add_model(page: Page, brought: Path, name: str) -> None:
    """Drop weights and description."""
    page.get_by_role("button", name="Add a model").click()
    files = [brought / f"{name}.safetensors", brought / f"{name}.json"]
    page.locator(".q-dialog input[type=file]").set_input_files(files)
    expect(page.locator("table.list").get_by_role("link", name=name)).to_be_visible()
    expect(page.locator(".q-dialog")).to_have_count(0)


def add_files(page: Page, visitor: Visitor, brought: Path) -> None:
    """Both networks and the images, until workers have tried the networks."""
    visitor.open("/")
    expect(page.get_by_text("No models yet")).to_be_visible()
    for name in ("digits-low", "digits-high"):
        add_model(page, brought, name)
    expect(page.locator("table.list .badge.good")).to_have_count(2)
    visitor.open("/datasets").locator("input[type=file]").set_input_files(brought / "digits.parquet")
    expect(page.locator("table.list")).to_contain_text("378")


def choose(page: Page, label: str, text: str) -> None:
    """One entry of a list."""
    page.get_by_role("combobox", name=label).click()
    page.locator(".q-menu .q-item", has_text=text).first.click()


def ask_for_digits(page: Page, visitor: Visitor) -> None:
    """A new job that gives 7, 8 and 9 to the first network, ready to be started."""
    visitor.open("/models/digits-low")
    page.get_by_role("link", name="Give it classes").click()
    choose(page, "Source: has the classes", "digits-high")
    expect(page.get_by_role("button", name="Start the job")).to_be_disabled()
    for digit in "789":
        page.get_by_role("checkbox", name=re.compile(f"^{digit} ")).click()
    expect(page.get_by_text("This job would be accepted.")).to_be_visible()


def start_job(page: Page) -> None:
    """Start it and come to its page."""
    page.get_by_role("button", name="Start the job").click()
    page.wait_for_url("**/jobs/job_*")


def try_image(page: Page, brought: Path) -> None:
    """Ask a deployment for the picture of a seven, and get the right answer with the module."""
    page.locator("input[type=file]").set_input_files(brought / "seven.png")
    expect(page.locator(".tried h3").last).to_have_text("With 1 module: 7")
