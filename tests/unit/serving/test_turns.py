"""Long requests take turns with others, end in time, and are bounded."""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import Any

import pytest
import torch

from app.serving.engine.capacity import Capacity, Overloaded, TooLate
from app.serving.engine.engine import Engine, Limits, NotFinite, Stopped
from app.serving.engine.modes import Mode
from app.serving.engine.pace import TURN_SECONDS, Pace
from app.serving.engine.programs import Branch, CommonHead, Program, Trunk, TrunkOutput, put_together
from app.serving.engine.turns import Batch, PendingRequest, RequestQueue
from pnc_core.images import Views
from pnc_core.module.composed import without_modules
from tests.unit.serving.world import World


class _Slow(Trunk):
    """Takes a while for a batch, and notes how large each was."""

    def __init__(self, here: World, seconds: float = 0.0) -> None:
        super().__init__(without_modules(*here.target), Mode())
        self.batches: list[int] = []
        self.seconds = seconds

    def read(
        self,
        x: torch.Tensor,
        branches: Collection[Branch],
        images: Views | None = None,
        common: Collection[CommonHead] = (),
    ) -> TrunkOutput:
        time.sleep(self.seconds)
        self.batches.append(len(x))
        return super().read(x, branches, images, common)


@pytest.fixture
def slow(here: World) -> _Slow:
    return _Slow(here, 0.02)


@pytest.fixture
def engine() -> Iterator[Engine]:
    yield from _running(batch=8, wait=0)


def _running(**limits: Any) -> Iterator[Engine]:
    engine = Engine(Limits(**limits))
    engine.start()
    yield engine
    engine.close()


def _together(*asked: Coroutine[Any, Any, object]) -> list[object]:
    async def ask() -> list[object]:
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask())


class _Stepwise(_Slow):
    """Runs a batch when it is told to."""

    def __init__(self, here: World) -> None:
        super().__init__(here)
        self.steps = threading.Semaphore(0)

    def read(
        self,
        x: torch.Tensor,
        branches: Collection[Branch],
        images: Views | None = None,
        common: Collection[CommonHead] = (),
    ) -> TrunkOutput:
        assert self.steps.acquire(timeout=60)
        return super().read(x, branches, images, common)


@pytest.mark.always
def test_a_short_request_waits_for_one_slice_of_a_long_one(here: World, engine: Engine) -> None:
    trunk = _Stepwise(here)
    program, waited = put_together(trunk, []), []

    async def ask() -> None:
        long = asyncio.create_task(engine.ask(program, here.images(240), 60))
        for _ in range(3):
            short = asyncio.create_task(engine.ask(program, here.images(1), 60))
            await asyncio.sleep(0.05)
            before = len(trunk.batches)
            while not short.done():
                trunk.steps.release()
                await _until(lambda: trunk.steps._value == 0)
                await asyncio.sleep(0.05)
            waited.append(len(trunk.batches) - before)
        assert not long.done()
        trunk.steps.release(40)
        assert len(await long) == 240

    asyncio.run(ask())
    assert max(waited) <= 3


async def _until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def test_long_requests_are_answered_as_if_they_were_alone(here: World, engine: Engine) -> None:
    trunk = _Slow(here)
    program = put_together(trunk, [])
    images = [here.images(count, count) for count in (100, 1, 37, 8, 60)]
    found = _together(*(engine.ask(program, some, 60) for some in images))
    for some, answer in zip(images, found, strict=True):
        assert isinstance(answer, torch.Tensor)
        assert torch.allclose(answer, engine.answer_now(program, some), atol=1e-5)


@pytest.mark.always
def test_the_deadline_is_held_in_the_middle_of_a_request(here: World, engine: Engine, slow: _Slow) -> None:
    begun = time.monotonic()
    (answer,) = _together(engine.ask(put_together(slow, []), here.images(4000), 0.3))
    assert isinstance(answer, TooLate)
    assert time.monotonic() - begun < 3  # 500 slices take 10 s
    engine.close()
    assert len(slow.batches) < 250


def test_what_is_given_up_in_the_middle_is_not_run_to_its_end(here: World, engine: Engine, slow: _Slow) -> None:
    async def ask() -> None:
        task = asyncio.create_task(engine.ask(put_together(slow, []), here.images(4000), 60))
        while not slow.batches:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(ask())
    engine.close()
    assert len(slow.batches) < 250


def test_an_image_without_finite_logits_is_named_and_the_rest_is_not_run(here: World, engine: Engine) -> None:
    trunk = _Slow(here)
    images = torch.zeros(400, 1, 8, 8)
    images[21] = torch.where(torch.arange(8) % 2 == 0, 3.4e38, -3.4e38)
    (answer,) = _together(engine.ask(put_together(trunk, []), images, 60))
    assert isinstance(answer, NotFinite)
    assert answer.image == 21
    engine.close()
    assert len(trunk.batches) < 50


def test_one_workspace_cannot_fill_the_line(here: World, slow: _Slow) -> None:
    engine = Engine(Limits(batch=8, wait=0, waiting=8, images=100, share=0.5))
    program = put_together(slow, [])
    blue = [engine.ask(program, here.images(20), 60, ("blue", "a")) for _ in range(4)]
    red = [engine.ask(program, here.images(1), 60, ("red", "b")) for _ in range(6)]
    engine.start()
    found = _together(*blue, *red)
    engine.close()
    assert [isinstance(one, Overloaded) for one in found] == [False] * 2 + [True] * 2 + [False] * 4 + [True] * 2


def test_a_largest_request_is_let_in_though_it_is_more_than_a_share() -> None:
    capacity = Capacity(100, 0.5)
    with capacity.taken("blue", 80):
        with pytest.raises(Overloaded), capacity.taken("blue", 1):
            pass
        with capacity.taken("red", 80), pytest.raises(Overloaded), capacity.taken("green", 1):
            pass
    with capacity.taken("blue", 10), capacity.taken("blue", 40), pytest.raises(Overloaded), capacity.taken("blue", 1):
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_inference_thread_that_has_ended_is_noticed(here: World, engine: Engine) -> None:
    class Deadly(_Slow):
        def read(self, *_: object, **__: object) -> TrunkOutput:
            raise SystemExit

    assert engine.trouble() is None
    (waits,) = _together(engine.ask(put_together(Deadly(here), []), here.images(1), 0.5))
    assert isinstance(waits, TooLate)
    assert "ended" in (engine.trouble() or "")
    (answer,) = _together(engine.ask(put_together(_Slow(here), []), here.images(1), 60))
    assert isinstance(answer, Stopped)


def test_a_batch_that_does_not_end_is_noticed(here: World) -> None:
    for engine in _running(batch=8, wait=0, stuck=0.1):
        (late,) = _together(engine.ask(put_together(_Slow(here, 2.0), []), here.images(1), 0.5))
        assert isinstance(late, TooLate)
        assert "0.1 s" in (engine.trouble() or "")
        deadline = time.monotonic() + 30
        while engine.trouble() is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert engine.trouble() is None


def _pending(program: Program, count: int, workspace: str, deployment: str) -> PendingRequest:
    loop = asyncio.new_event_loop()
    request = PendingRequest(program, Views(torch.zeros(count, 1, 8, 8)), loop.create_future(), workspace, deployment)
    loop.close()
    return request


def _served(waiting: RequestQueue, batches: int, most: int = 8) -> list[list[str]]:
    """Whose slices were in each batch."""
    found = []
    for _ in range(batches):
        batch, first = Batch(most), waiting.first()
        assert first is not None
        kind = first.kind()
        assert kind is not None
        batch.begin(kind, most)
        waiting.fill(batch)
        found.append([f"{one.request.workspace}/{one.request.deployment}" for one in batch.slices])
    return found


def test_workspaces_take_turns_then_deployments_then_requests(here: World) -> None:
    one, two, three = (put_together(_Slow(here), []) for _ in range(3))
    waiting = RequestQueue()
    for _ in range(5):
        waiting.add(_pending(one, 800, "blue", "a"))
    waiting.add(_pending(two, 800, "blue", "b"))
    waiting.add(_pending(three, 8, "red", "c"))
    waiting.add(_pending(three, 8, "red", "c"))
    found = _served(waiting, 7)
    assert found == [["blue/a"], ["red/c"], ["blue/b"], ["red/c"], ["blue/a"], ["blue/b"], ["blue/a"]]
    assert len(waiting) == 6


def test_requests_of_one_target_fill_a_batch_and_the_first_of_another_kind_keeps_its_turn(here: World) -> None:
    shared, other = put_together(_Slow(here), []), put_together(_Slow(here), [])
    waiting = RequestQueue()
    waiting.add(_pending(shared, 2, "blue", "a"))
    waiting.add(_pending(other, 8, "blue", "b"))
    waiting.add(_pending(shared, 800, "blue", "a"))
    for _ in range(20):
        waiting.add(_pending(shared, 1, "blue", "c"))
    first, second, third = _served(waiting, 3)
    assert sorted(set(first)) == ["blue/a", "blue/c"]
    assert second == ["blue/b"]
    assert sorted(set(third)) == ["blue/a", "blue/c"]


def test_a_slice_takes_no_longer_than_a_turn_or_one_image() -> None:
    for one, whole, wanted in ((0.001, 0.004, 8), (0.005, 0.04, 2), (0.03, 0.24, 1), (0.03, 0.033, 8), (0.2, 0.2, 8)):
        pace = Pace(8)
        assert pace.slice() == 8  # nothing is known yet
        pace.note(1, one)
        pace.note(8, whole)
        assert pace.slice() == wanted, (one, whole, TURN_SECONDS)
