"""A child process ends with its parent, even when the parent is killed."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

_PARENT = "PNC_PARENT_PID"


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process: this one's, the settings, and whose child it is."""
    return {**os.environ, **settings, _PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Watch, from a thread of its own, for the parent's death; then end this process.

    The parent says who it is in the environment: it may be dead before the child looks. Of a child that
    `multiprocessing` has started, that library knows. Started by hand, nothing is watched.
    """
    parent, started_by = os.environ.get(_PARENT), multiprocessing.parent_process()
    if started_by is not None:
        _watch(started_by.join)
    elif parent is not None:
        _watch(partial(_outlive, int(parent)))


def _outlive(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)


def _watch(wait: Callable[[], object]) -> None:
    threading.Thread(target=_end_after, args=(wait,), name="lifeline", daemon=True).start()


def _end_after(wait: Callable[[], object]) -> None:
    wait()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os._exit(1)
