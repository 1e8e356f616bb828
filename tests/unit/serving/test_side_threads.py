"""Threads beside the event loop are shared by workspaces."""

import asyncio
import threading

import pytest

from app.serving.engine.capacity import TooLate
from app.serving.engine.side_threads import SideThreads


def _order(threads: int, share: float, names: list[str], first: int) -> tuple[list[str], list[str]]:
    """Whose work was begun before any ended, and whose was begun at all, in order."""
    aside, release, order = SideThreads(threads, share), threading.Event(), list[str]()

    def work(name: str) -> None:
        order.append(name)
        assert release.wait(60)

    async def run() -> list[str]:
        until = asyncio.get_running_loop().time() + 60
        tasks = [asyncio.create_task(aside.run(name.split()[0], lambda name=name: work(name), until)) for name in names]
        while len(order) < first:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        begun = list(order)
        release.set()
        await asyncio.gather(*tasks)
        return begun

    return asyncio.run(run()), order


def test_no_workspace_has_all_threads() -> None:
    begun, order = _order(2, 0.5, ["blue 1", "blue 2", "red 1", "red 2"], 2)
    assert sorted(begun) == ["blue 1", "red 1"]
    assert len(order) == 4


def test_workspaces_that_wait_take_turns() -> None:
    _, order = _order(1, 1.0, ["blue 1", "blue 2", "blue 3", "red 1", "red 2", "green 1"], 1)
    assert order == ["blue 1", "blue 2", "red 1", "green 1", "blue 3", "red 2"]


def test_a_turn_that_does_not_come_in_time_is_given_up() -> None:
    aside, release = SideThreads(1), threading.Event()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        first = asyncio.create_task(aside.run("blue", lambda: release.wait(30), loop.time() + 60))
        await asyncio.sleep(0.05)
        with pytest.raises(TooLate):
            await aside.run("red", lambda: None, loop.time() + 0.1)
        given_up = asyncio.create_task(aside.run("red", lambda: None, loop.time() + 60))
        await asyncio.sleep(0.05)
        given_up.cancel()
        release.set()
        assert await first
        assert await aside.run("red", lambda: 7, loop.time() + 60) == 7

    asyncio.run(run())


def test_work_that_fails_gives_its_thread_back() -> None:
    aside = SideThreads(1)

    def fail() -> None:
        raise ValueError("broken")

    async def run() -> None:
        until = asyncio.get_running_loop().time() + 60
        for _ in range(3):
            with pytest.raises(ValueError, match="broken"):
                await aside.run("blue", fail, until)

    asyncio.run(run())
