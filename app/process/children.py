"""Command lines of child processes, safe from modules in the current folder."""

import os
import sys


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this service in a child process.

    `-P` leaves the current folder out of Python's path, because the folder may hold an `app.py` or a `queue.py`.
    PYTHONPATH and the user's site directory stay in the path, because the service may be installed there.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def shield_children() -> None:
    """Leave the current folder out of the path of every Python process that this process starts.

    Children of `multiprocessing` inherit the flags of this process, which cannot be changed after its start.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
