"""A function in a child process with limits."""

import os
import signal
import time

import pytest

from benchmarks.survey.limits import LimitExceeded, Limits, call_limited


def _sum(a: int, b: int) -> tuple[int, int]:
    return a + b, os.getpid()


def _spin() -> None:
    while True:
        pass


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill() -> int:
    try:
        return len(bytearray(2 * 2**30))
    except MemoryError:
        return -1


def test_the_result_of_the_child_is_returned() -> None:
    total, process = call_limited(_sum, 2, 3, limits=Limits(seconds=30))
    assert total == 5
    assert process != os.getpid()


@pytest.mark.parametrize(
    ("function", "arguments", "told"),
    [(_spin, (), "more than 1 s of one core"), (time.sleep, (60,), "more than 4 s$"), (_die, (), "died with -9")],
)
def test_a_child_that_ends_without_a_result_is_an_error(function, arguments, told: str) -> None:
    with pytest.raises(LimitExceeded, match=told):
        call_limited(function, *arguments, limits=Limits(seconds=1))


def test_the_memory_of_the_child_is_limited() -> None:
    assert call_limited(_fill, limits=Limits(seconds=30, gigabytes=1)) == -1
