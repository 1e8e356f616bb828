"""A child process ends with its parent, even when the parent is killed."""

import os
import signal
import threading
import time
from collections.abc import Mapping

_PARENT = "PNC_PARENT_PID"


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process: this one's, the settings, and whose child it is."""
    return {**os.environ, **settings, _PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Watch, from a thread of its own, for the parent's death; then end this process.

    The parent says who it is in the environment: it may be dead before the child looks.
    Without that (started by hand) nothing is watched.
    """
    parent = os.environ.get(_PARENT)
    if parent is not None:
        threading.Thread(target=_watch, args=(int(parent),), name="lifeline", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os._exit(1)
