"""Child processes that begin with everything imported: importing takes seconds, a fork takes none.

They are forked from a process that has imported the runner and done nothing else: it has one thread and
has not touched CUDA, which begins in the child. Source: the fork server of the standard library.
"""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import active_children, forkserver, get_context
from multiprocessing.context import ForkServerProcess
from typing import Any

from setproctitle import setproctitle

from app.zoo.leases import Lease

TITLE = "pnc-runner"
"""What a child is called in the list of processes, before its kind and the id of its row."""
_context = get_context("forkserver")
_preloaded = ["workers.runner"]
_context.set_forkserver_preload(_preloaded)


def preload(*modules: str) -> None:
    """Let children begin with more modules imported; to be called before the nursery is opened."""
    _preloaded.extend(modules)
    _context.set_forkserver_preload(_preloaded)


def open_nursery() -> None:
    """Start the process that children are forked from, and wait until it can: nobody holds a lease meanwhile."""
    with _hangup_ignored():
        forkserver.ensure_running()
    first = _context.Process(target=_come_and_go)
    first.start()
    first.join()


def kill_all() -> None:
    """End all children at once."""
    for child in active_children():
        child.kill()


@contextmanager
def _hangup_ignored() -> Iterator[None]:
    """What is started meanwhile ignores SIGHUP for good: a closed terminal sends it to all, and we end in order."""
    if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _come_and_go() -> None:
    pass


def start(kind: str, lease: Lease, environment: Mapping[str, str]) -> ForkServerProcess:
    """A child that works on a leased row and ends with an exit code of `endings`.

    Args:
        kind: Of the row, a name of `runner.KINDS`.
        lease: Handed over to the child.
        environment: All its variables.
    """
    child = _context.Process(target=_run, args=(kind, asdict(lease), dict(environment)), name=f"{kind} {lease.id}")
    child.start()
    return child


def _run(kind: str, lease: dict[str, Any], environment: dict[str, str]) -> None:
    from workers import runner  # the supervisor, which imports this module, stays without torch

    setproctitle(f"{TITLE} {kind} {lease['id']}")  # finds its place by the variables that the process began with
    os.environ.clear()
    os.environ.update(environment)
    runner.main(kind, Lease(**lease))
