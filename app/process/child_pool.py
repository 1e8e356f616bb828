"""Child processes that do one dangerous or slow task at a time, with limited memory and time, and are kept.

A hostile input can crash its process or fill the process's memory. A child takes that risk instead of the service.
The child receives no settings and no secrets. It exchanges messages with the parent on a socket, its standard input,
and ends when the parent closes the socket or dies. `concurrent.futures` and `multiprocessing` have no time limit for
one task and no memory limit for a worker.

A message is a head and a body, two byte strings.
"""

import os
import resource
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from app.process.children import python
from app.process.signals import leave_to_parent

Bytes = bytes | bytearray | memoryview
_LENGTHS = struct.Struct("<2Q")
"""Bytes of the head and of the body."""
_PASSED_ON = ("PATH", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")
"""Environment variables that a child inherits."""


class ChildPool:
    """Children that are started when they are needed and replaced when they fail. Several threads may use the pool.

    Args:
        module: Module that the children run; its entry point calls `serve`.
        size: Largest number of tasks at once; further tasks wait for a child.
        seconds: Time limit of one read or write on the socket. A task that exceeds it ends its child.
        memory: Bytes of address space of each child.
    """

    def __init__(self, module: str, size: int, seconds: float, memory: int) -> None:
        self._module, self._seconds, self._memory = module, seconds, memory
        self._permits = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []

    def start(self) -> None:
        """Start one child before the first task."""
        self._put_back(self._new())

    def ask(self, head: Bytes, body: Bytes) -> tuple[bytearray, bytearray]:
        """Send a message to a child and return the head and the body of its answer.

        Raises:
            OSError: the child has ended, or the time limit has passed. The child is killed.
        """
        with self._permits:
            child = self._take()
            try:
                answer = child.ask(head, body)
            except BaseException:
                child.close()
                raise
            self._put_back(child)
            return answer

    def close(self) -> None:
        """End all idle children. A busy child ends with this process."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.close()

    def _take(self) -> "_Child":
        """An idle child that is alive, or a new child: the death of an idle child must not fail the next task."""
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None:
                return self._new()
            if child.is_alive():
                return child
            child.close()

    def _put_back(self, child: "_Child") -> None:
        with self._lock:
            self._idle.append(child)

    def _new(self) -> "_Child":
        return _Child(self._module, self._seconds, self._memory)


class _Child:
    """One process and the socket to it."""

    def __init__(self, module: str, seconds: float, memory: int) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(seconds)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                python(module, str(memory)),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=bare_environment(),
                process_group=0,  # keeps a terminal's Ctrl-C from the child; the parent closes the socket instead
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, head: Bytes, body: Bytes) -> tuple[bytearray, bytearray]:
        _send(self._socket, head, body)
        return _receive(self._socket)

    def close(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()


def bare_environment() -> dict[str, str]:
    """The environment of a child that reads hostile input: no settings, no secrets, one thread."""
    return {**{name: os.environ[name] for name in _PASSED_ON if name in os.environ}, "OMP_NUM_THREADS": "1"}


def confine(memory: int) -> None:
    """Limit this process for good: no files can be written, and no core is dumped.

    Args:
        memory: Bytes of address space.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve(answer: Callable[[bytearray, bytearray], tuple[Bytes, Bytes]], *, niceness: int = 0) -> None:
    """Run the loop of a child: limit its resources, then answer messages until the parent closes the socket.

    The first argument of the command line is the child's address space in bytes.

    Args:
        answer: Takes the head and the body of a message and returns those of the answer.
        niceness: Added to the child's own; higher values give way to other processes.
    """
    confine(int(sys.argv[1]))
    os.nice(niceness)
    leave_to_parent()
    with socket.socket(fileno=os.dup(0)) as connection, suppress(ConnectionError):
        while True:
            _send(connection, *answer(*_receive(connection)))


def _send(connection: socket.socket, head: Bytes, body: Bytes) -> None:
    connection.sendall(_LENGTHS.pack(len(head), len(body)))
    connection.sendall(head)
    connection.sendall(body)


def _receive(connection: socket.socket) -> tuple[bytearray, bytearray]:
    head, body = _LENGTHS.unpack(_read(connection, _LENGTHS.size))
    return _read(connection, head), _read(connection, body)


def _read(connection: socket.socket, count: int) -> bytearray:
    content, have = bytearray(count), 0
    view = memoryview(content)
    while have < count:
        got = connection.recv_into(view[have:])
        if got == 0:
            raise ConnectionError("expected more bytes, got a closed socket")
        have += got
    return content
