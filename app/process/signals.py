"""How signals end a process: in order at first, and at once when Ctrl-C is pressed again.

TERM, the first Ctrl-C and SIGHUP, which a terminal sends when it is closed, ask for the same. Where SIGHUP is ignored,
as under nohup, it stays so. Only Ctrl-C hurries: systemd sends TERM and SIGHUP together, a shell SIGHUP twice.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

INTERRUPTED = 130
"""The code that a process ends with which was hurried."""
_SAID = b"ending: what is in hand is finished or given back; Ctrl-C again ends at once\n"
_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none


def on_signals(ask: Callable[[], object], hurry: Callable[[], object]) -> None:
    """Set what signals do in this process; to be called by its main thread.

    Args:
        ask: Asks the process to end; may be called several times.
        hurry: Ends it; called when Ctrl-C follows any of the signals.
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
    """Tell who presses Ctrl-C what it does; without Python's own streams, which may be in use just now."""
    with suppress(OSError):  # the terminal is gone
        os.write(2, _SAID)


def leave_to_parent() -> None:
    """Ignore what a terminal sends to all of its processes: the parent ends this one in time."""
    for number in (signal.SIGINT, _HANGUP):
        if number is not None:
            signal.signal(number, signal.SIG_IGN)
