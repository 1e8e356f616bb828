"""A user's actions on the pages, one function per action."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitor


def add_model(page: Page, brought: Path, name: str) -> None:
    """Add a model from its weights and its spec."""
    page.get_by_role("button", name="Add a model").click()
    files = [brought / f"{name}.safetensors", brought / f"{name}.json"]
    page.locator(".q-dialog input[type=file]").set_input_files(files)
    expect(page.locator("table.list").get_by_role("link", name=name)).to_be_visible()
    expect(page.locator(".q-dialog")).to_have_count(0)


def add_files(page: Page, visitor: Visitor, brought: Path) -> None:
    """Add both networks and the images, and wait until the networks are validated."""
    visitor.open("/")
    expect(page.get_by_text("No models yet")).to_be_visible()
    for name in ("digits-low", "digits-high"):
        add_model(page, brought, name)
    expect(page.locator("table.list .badge.good")).to_have_count(2)
    visitor.open("/datasets").locator("input[type=file]").set_input_files(brought / "digits.parquet")
    expect(page.locator("table.list")).to_contain_text("378")


def choose(page: Page, label: str, text: str) -> None:
    """Choose one entry of a list."""
    page.get_by_role("combobox", name=label).click()
    page.locator(".q-menu .q-item", has_text=text).first.click()


def ask_for_digits(page: Page, visitor: Visitor) -> None:
    """Fill in a new job that clones 7, 8 and 9 into the first network; does not start it."""
    visitor.open("/models/digits-low")
    page.get_by_role("link", name="Give it classes").click()
    choose(page, "Source: has the classes", "digits-high")
    expect(page.get_by_role("button", name="Start the job")).to_be_disabled()
    for digit in "789":
        page.get_by_role("checkbox", name=re.compile(f"^{digit} ")).click()
    expect(page.get_by_text("This job would be accepted.")).to_be_visible()


def start_job(page: Page) -> None:
    """Start the job and wait for its page."""
    page.get_by_role("button", name="Start the job").click()
    page.wait_for_url("**/jobs/job_*")


def try_image(page: Page, brought: Path) -> None:
    """Predict an image of a seven; the module must give the right class."""
    page.locator("input[type=file]").set_input_files(brought / "seven.png")
    expect(page.locator(".tried h3").last).to_have_text("With 1 module: 7")
