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
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from setproctitle import setproctitle

from app.db.leases import Lease

TITLE = "pnc-runner"
"""What a child is called in the list of processes, before its kind and the id of its row."""
_context = get_context("forkserver")
_preloaded = ["workers.runner"]
_context.set_forkserver_preload(_preloaded)


def preload(*modules: str) -> None:
    """Let children begin with more modules imported; to be called before the nursery is opened."""
    _preloaded.extend(modules)
    _context.set_forkserver_preload(_preloaded)


def open_runner_pool() -> int:
    """Start the process that children are forked from, and wait until it can: nobody holds a lease meanwhile.

    Returns:
        How many accelerators a child can use, as torch says: this process stays without it.
    """
    with _hangup_ignored():
        forkserver.ensure_running()
    receiving, sending = _context.Pipe(duplex=False)
    first = _context.Process(target=_count_accelerators, args=(sending,))
    first.start()
    sending.close()
    try:
        return int(receiving.recv())
    except EOFError:  # it died: of a driver that is broken, perhaps
        return 0
    finally:
        receiving.close()
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


def _count_accelerators(sending: Connection) -> None:
    import torch

    sending.send(torch.cuda.device_count() if torch.cuda.is_available() else 0)


def start(kind: str, lease: Lease, environment: Mapping[str, str]) -> ForkServerProcess:
    """A child that works on a leased row and ends with an exit code of `exit_codes`.

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
