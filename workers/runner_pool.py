"""Starts child processes with everything imported: an import takes seconds, a fork takes none.

Children are forked by the standard library's fork server. This process has imported the runner and done nothing else:
it has one thread and has not initialised CUDA, which each child does itself.
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
"""Title of a child in the list of processes; the kind and the id of its row follow."""
_context = get_context("forkserver")
_preloaded = ["workers.runner"]
_context.set_forkserver_preload(_preloaded)


def preload(*modules: str) -> None:
    """Add modules that the fork server imports; call before `open_runner_pool`."""
    _preloaded.extend(modules)
    _context.set_forkserver_preload(_preloaded)


def open_runner_pool() -> int:
    """Start the fork server and wait until it is ready, so that no lease is held during the imports.

    Returns:
        Number of accelerators that a child can use. A child asks torch, because this process does not import it.
    """
    with _hangup_ignored():
        forkserver.ensure_running()
    receiving, sending = _context.Pipe(duplex=False)
    first = _context.Process(target=_count_accelerators, args=(sending,))
    first.start()
    sending.close()
    try:
        return int(receiving.recv())
    except EOFError:  # the child died, for example of a broken driver
        return 0
    finally:
        receiving.close()
        first.join()


def kill_all() -> None:
    """Kill all children."""
    for child in active_children():
        child.kill()


@contextmanager
def _hangup_ignored() -> Iterator[None]:
    """Ignore SIGHUP in processes started within the block. A closed terminal sends SIGHUP to all processes, and the
    worker itself stops its children in order.
    """
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
    """Start a child that works on a leased row and exits with a code of `exit_codes`.

    Args:
        kind: Kind of the row, a key of `runner.KINDS`.
        lease: The row's lease; the child uses it.
        environment: All environment variables of the child.
    """
    child = _context.Process(target=_run, args=(kind, asdict(lease), dict(environment)), name=f"{kind} {lease.id}")
    child.start()
    return child


def _run(kind: str, lease: dict[str, Any], environment: dict[str, str]) -> None:
    from workers import runner  # imported here, so that the supervisor does not import torch

    setproctitle(f"{TITLE} {kind} {lease['id']}")  # needs the original environment, so call it before `clear`
    os.environ.clear()
    os.environ.update(environment)
    runner.main(kind, Lease(**lease))
