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
    """The environment of a child process: this process's environment, the settings, and this process's id."""
    return {**os.environ, **settings, _PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Start a thread that ends this process when the parent dies.

    The environment holds the parent's id, because the parent may die before the child asks for it. For children of
    `multiprocessing`, that library knows the parent. A process that was started by hand is not watched.
    """
    parent, started_by = os.environ.get(_PARENT), multiprocessing.parent_process()
    if started_by is not None:
        _watch(started_by.join)
    elif parent is not None:
        _watch(partial(_wait_for_end, int(parent)))


def _wait_for_end(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)


def _watch(wait: Callable[[], object]) -> None:
    threading.Thread(target=_end_after, args=(wait,), name="lifeline", daemon=True).start()


def _end_after(wait: Callable[[], object]) -> None:
    wait()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os._exit(1)
