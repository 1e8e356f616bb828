"""Signals that end a process: a first signal ends it in order, and a further Ctrl-C ends it at once.

TERM, Ctrl-C and SIGHUP all ask for an orderly end. A terminal sends SIGHUP when it closes. A process that ignores
SIGHUP, as under nohup, keeps ignoring it. Only Ctrl-C ends at once, because systemd sends TERM together with SIGHUP
and a shell sends SIGHUP twice.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

INTERRUPTED = 130
"""Exit code of a process that Ctrl-C has ended at once."""
_NOTICE = b"ending: running work is finished or given back; Ctrl-C again ends at once\n"
_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none


def on_signals(ask: Callable[[], object], hurry: Callable[[], object]) -> None:
    """Install signal handlers. Call it in the main thread.

    Args:
        ask: Asks the process to end. May be called several times.
        hurry: Ends the process at once. Called when Ctrl-C follows any of the signals.
    """
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and asked:
            hurry()
            return
        asked.append(number)
        if number == signal.SIGINT:
            say()
        ask()

    for known in (signal.SIGTERM, signal.SIGINT):
        signal.signal(known, handle)
    if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
        signal.signal(_HANGUP, handle)


def say() -> None:
    """Print what Ctrl-C does. Python's own streams are avoided, because the interrupted code may be using them."""
    with suppress(OSError):  # the terminal has closed
        os.write(2, _NOTICE)


def leave_to_parent() -> None:
    """Ignore the signals that a terminal sends to all its processes. The parent ends this process."""
    for number in (signal.SIGINT, _HANGUP):
        if number is not None:
            signal.signal(number, signal.SIG_IGN)
