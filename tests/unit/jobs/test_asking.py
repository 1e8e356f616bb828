"""The form of a new job, without a browser: its proposals, and the effect of the visitor's own choices."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from nicegui import Client, core
from nicegui.page import page
from starlette.requests import Request

from app.jobs.asking.page import _Form
from app.web.frame import frame
from app.web.mount import site
from app.web.page_context import PageContext
from app.zoo import Zoo
from tests.unit import seeds

Act = Callable[[_Form, Callable[[], str]], Awaitable[None]]
"""Acts on the form; the second argument reads what the page says."""


class NoServing:
    """A serving process that nobody asks."""

    async def sync(self, deployment: str, generation: int) -> Any:
        raise AssertionError

    async def fetch(self, *_: object, **__: object) -> tuple[int, bytes]:
        raise AssertionError


def visit(
    monkeypatch: pytest.MonkeyPatch, zoo: Zoo, act: Callable[[_Form, Callable[[], str]], Awaitable[None]]
) -> None:
    """Build the form for the target `low` and act on it."""
    site()

    async def run() -> None:
        monkeypatch.setattr(core, "loop", asyncio.get_running_loop())
        request = Request({"type": "http", "method": "GET", "path": "/new", "query_string": b"", "headers": []})
        with Client(page(""), request=request) as client, frame(request, "New job"):
            form = _Form(PageContext(zoo, NoServing()), "low", None)
            await form.build()
            await act(form, lambda: str(form._verdict.content))
        client.delete()

    anyio.run(run)


async def settle() -> None:
    """Wait for the check that follows each change."""
    for _ in range(60):
        await asyncio.sleep(0.01)


@pytest.fixture
def digits(zoo: Zoo) -> Zoo:
    """A target, a source, images of both, and newer images of neither."""
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low", seeds.LOW, value=1)
        seeds.version(session, zoo, "high", seeds.HIGH, value=2)
        seeds.dataset(session, zoo)
        clouds = seeds.dataset(session, zoo)
        clouds.name, clouds.classes, clouds.counts = "clouds", ["cloud"], {"cloud": 500}
    return zoo


def test_source_and_dataset_follow_the_chosen_classes(monkeypatch: pytest.MonkeyPatch, digits: Zoo) -> None:
    async def act(form: _Form, verdict: Callable[[], str]) -> None:
        await settle()
        assert "Nothing to check yet" in verdict()
        assert (form._source.value, form._data.value) == (None, None)
        await form._learning._choose("7", True)
        await settle()
        assert form._source.value == "high"
        assert form._data.options[form._data.value].startswith("digits")
        assert "This job would be accepted." in verdict()
        assert form._post.enabled
        await form._learning._choose("7", False)
        await settle()
        assert (form._source.value, form._data.value) == (None, None)
        assert not form._post.enabled

    visit(monkeypatch, digits, act)


def test_a_dataset_that_the_visitor_chose_stays(monkeypatch: pytest.MonkeyPatch, digits: Zoo) -> None:
    async def act(form: _Form, verdict: Callable[[], str]) -> None:
        await form._learning._choose("7", True)
        await settle()
        (clouds,) = [key for key, label in form._data.options.items() if label.startswith("clouds")]
        form._data.set_value(clouds)
        await settle()
        await form._learning._choose("8", True)
        await settle()
        assert form._data.value == clouds
        assert "expected at least" in verdict()
        assert "the page of datasets" in verdict()

    visit(monkeypatch, digits, act)


def test_a_number_out_of_its_range_is_told(monkeypatch: pytest.MonkeyPatch, digits: Zoo) -> None:
    async def act(form: _Form, verdict: Callable[[], str]) -> None:
        await form._learning._choose("7", True)
        await settle()
        form._fields["keep"].set_value(7)
        await settle()
        assert "keep" in verdict()
        assert "problem" in verdict()

    visit(monkeypatch, digits, act)
