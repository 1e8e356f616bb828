"""Wake-ups on a real Redis: each mark wakes one loop, one process has each turn, and without Redis work goes on."""

import threading
import time

import pytest

from app.jobs.wakeups import MOST_MARKS, WakeUps


@pytest.fixture
def wake_ups(redis_url: str) -> WakeUps:
    return WakeUps(redis_url)


def test_a_mark_wakes_one_of_the_loops_that_wait(wake_ups: WakeUps) -> None:
    woken: list[bool | None] = []
    waiting = [threading.Thread(target=lambda: woken.append(wake_ups.wait("imports", 2))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    wake_ups.mark({"imports", "datasets"})
    for thread in waiting:
        thread.join()
    assert sorted(map(bool, woken)) == [False, False, True]
    assert time.monotonic() - began < 5
    assert wake_ups.wait("datasets", 1), "a mark stays until a loop takes it"
    assert wake_ups.wait("datasets", 1) is False
    wake_ups.close()


def test_marks_do_not_accumulate(wake_ups: WakeUps) -> None:
    for _ in range(MOST_MARKS + 5):
        wake_ups.mark(["imports"])
    assert wake_ups._redis.llen("pnc.waiting.imports") == MOST_MARKS
    wake_ups.close()


def test_one_process_has_a_turn_and_the_next_turn_comes(wake_ups: WakeUps) -> None:
    assert [wake_ups.has_turn("sweep", 0.5) for _ in range(3)] == [True, False, False]
    assert wake_ups.has_turn("garbage", 0.5)
    time.sleep(0.6)
    assert wake_ups.has_turn("sweep", 0.5)
    wake_ups.close()


def test_without_redis_every_process_works_on(caplog: pytest.LogCaptureFixture) -> None:
    away = WakeUps("redis://127.0.0.1:9/0")
    away.mark(["imports"])
    assert away.wait("imports", 1) is None
    assert away.has_turn("sweep", 1)
    assert "a worker cannot be woken" in caplog.text
    away.close()
