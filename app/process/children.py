"""Python processes that are started by others of the service, in whatever folder that was started in."""

import os
import sys


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours in a child process.

    The folder that the service was started in may hold an `app.py` or a `queue.py`: `-P` keeps it from the path. What
    the user says in PYTHONPATH holds, and so does the user's own site, where the service itself may be installed.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def shield_children() -> None:
    """Keep the current folder from the path of every Python that this process starts, whoever starts it.

    `multiprocessing` starts some that take over the flags of this process, and these cannot be changed any more.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
