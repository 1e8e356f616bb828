"""Fixtures: a real service, a real browser, and the browser's errors."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import safetensors.torch
import torch
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from rich.console import Console

from app import demo
from pnc_client import Client
from pnc_client.parquet import write_parquet
from pnc_core.config import CloneConfig
from tests.integration.conftest import Up, start, start_service, stop_service  # noqa: F401 - `start` is a fixture

CHROMIUM = Path(os.environ.get("PNC_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = int(os.environ.get("PNC_TEST_PATIENCE", "120000"))
"""Time limit of a step, in milliseconds."""
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
WIDTHS = (1280, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@dataclass
class Visitor:
    """A page of the browser, and its errors and warnings."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        def hear(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.complaints.append(f"{self.page.url}: {message.text}")

        self.page.on("console", hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"{self.page.url}: {error}"))

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        self.page.wait_for_selector("main h1")
        return self.page


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert CHROMIUM.exists(), f"expected Chromium at {CHROMIUM}; install it, or name another with PNC_CHROMIUM"
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(browser: Browser, service: Up) -> Iterator[Visit]:
    """Opens a window with a width and a colour scheme."""
    contexts = []

    def _visit(width: int = 1280, scheme: str = "light", url: str = service.url) -> Visitor:
        context = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        visitor = Visitor(context.new_page(), url)
        visitor.watch()
        return visitor

    yield _visit
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An empty zoo."""
    service = start_service(tmp_path_factory.mktemp("browser") / "data")
    yield service
    assert stop_service(service) == 0


@pytest.fixture(scope="session")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's files: two networks with their specs, images, and one image to predict."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("brought")
    material = demo.prepare(0, Console(file=io.StringIO()))
    for name, (network, spec) in {"digits-low": material.target, "digits-high": material.source}.items():
        safetensors.torch.save_file(network.state_dict(), folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps(asdict(spec)))
    write_parquet(folder / "digits.parquet", demo.png_rows(material.job), demo.DIGITS)
    (folder / "seven.png").write_bytes(demo.png(material.test.only(["7"]).images[0]))
    return folder


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, dict[str, str]]]:
    """A service that `pnc gallery` has filled, with a second job to compare, and its pages by name."""
    service = start_service(tmp_path_factory.mktemp("filled") / "data")
    command = [sys.executable, "-m", "app.cli", "gallery", "--json", "--url", service.url]
    made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
    with Client(service.url) as client:
        config = CloneConfig(classes=("5", "6"), preset="fast", seed=1)
        other = client.jobs.create("digits-low", "digits-high", made["dataset"], config).wait()
        hook = client.webhooks.create(
            "https://receiver.example/hook", events=["job.succeeded"], description="counts jobs"
        )
    yield (
        service,
        {
            "models": "/",
            "add": "/add",
            "model": "/models/digits-low",
            "datasets": "/datasets",
            "dataset": f"/datasets/{made['dataset']}",
            "jobs": "/jobs",
            "new-job": "/new?target=digits-low",
            "job": f"/jobs/{made['job']}",
            "modules": "/modules",
            "module": f"/modules/{made['module']}",
            "deployments": "/deployments",
            "deployment": f"/deployments/{made['deployment']}",
            "compare": f"/compare?ids={made['job']},{other.id}",
            "help": "/help",
            "webhooks": "/webhooks",
            "webhook": f"/webhooks/{hook.id}",
            "keys": "/keys",
            "audit": "/audit",
            "settings": "/settings",
        },
    )
    assert stop_service(service) == 0
