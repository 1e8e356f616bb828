"""Makes programs for ONNX Runtime beside the served ones, and hands each to its trunk or branch.

One thread works through the orders. It takes a program from the folder of programs, or lets a child process export it
(`app.serving.engine.exporting`). Until then, torch runs the network, so that no deployment and no request waits.
"""

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakMethod

import orjson

from app.process.child_pool import ChildPool
from app.serving.engine.program_files import ProgramFiles

log = logging.getLogger(__name__)
SECONDS = 300.0
"""Time limit of one export."""
MEMORY = 32 * 1024**3
"""Bytes of address space of a child. torch reserves several GiB that it does not use."""
IDLE_SECONDS = 15.0
"""Time without orders after which the child ends, because it holds half a gigabyte."""
Model = bytes
"""An ONNX file."""
LAYOUT = 1
"""Raised when the same order gives another program."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the object store: weights or a bundle."""

    digest: str
    """SHA-256 of the bytes, 64 hexadecimal digits."""
    opened: Callable[[], AbstractContextManager[Path]]
    """A local path of the file, after a check of its digest."""


@dataclass(frozen=True)
class Order:
    """A part of a network that must be exported."""

    file: StoredFile
    part: dict[str, Any]
    """Description of the part, from `app.serving.engine.exporting`."""

    @cached_property
    def key(self) -> str:
        """Name of the program in the folder: a digest of the file's digest, the part and the versions."""
        versions = [LAYOUT, *(version(name) for name in ("torch", "onnxscript", "onnxruntime"))]
        return hashlib.sha256(orjson.dumps([self.file.digest, self.part, versions])).hexdigest()


Receive = Callable[[Order, Model], None]


class Exporter:
    """Exports networks one after another.

    Args:
        files: Keeps exported programs.
    """

    def __init__(self, files: ProgramFiles) -> None:
        self._files = files
        self._children = ChildPool("app.serving.engine.exporting", 1, SECONDS, MEMORY)
        self._orders: deque[tuple[Order, WeakMethod[Receive]]] = deque()
        self._changed = threading.Condition()
        self._failed: set[str] = set()
        """Keys of programs that cannot be made; they are not tried again."""
        self._busy = self._closing = False
        self._thread: threading.Thread | None = None

    def ask(self, order: Order, receive: Receive) -> None:
        """Ask for a program.

        Args:
            order: The part of the network.
            receive: Method that takes the order and the program. It is called on the exporter's thread. If its object
                has been freed before, nothing is exported.
        """
        with self._changed:
            if self._closing:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="exporter", daemon=True)
                self._thread.start()
            self._orders.append((order, WeakMethod(receive)))
            self._changed.notify_all()

    def has_failed(self, order: Order) -> bool:
        """Whether this program cannot be made."""
        return order.key in self._failed

    def settled(self, seconds: float) -> bool:
        """Wait until all orders are done; False: they are not within this time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._orders and not self._busy, seconds)

    def close(self) -> None:
        """Drop waiting orders. A running child ends with this process."""
        with self._changed:
            self._closing = True
            self._orders.clear()
            self._changed.notify_all()
        self._children.close()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(self._has_news, IDLE_SECONDS):
                    self._children.close()
                    self._changed.wait_for(self._has_news)
                if self._closing:
                    break
                order, receive = self._orders.popleft()
                self._busy = True
            try:
                self._fulfil(order, receive)
            except Exception:
                log.exception("a program could not be prepared; torch runs the network instead")
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        self._children.close()

    def _has_news(self) -> bool:
        return self._closing or bool(self._orders)

    def _fulfil(self, order: Order, receive: "WeakMethod[Receive]") -> None:
        key = order.key
        if receive() is None or key in self._failed:
            return
        program = self._files.get(key)
        is_new = program is None
        try:
            program = program or self._exported(order)
            take = receive()
            if take is not None:
                take(order, program)
        except Exception as error:  # exporting, loading and running a network may raise any error
            if not isinstance(error, OSError):  # the store may come back
                self._failed.add(key)
                self._files.remove(key)
            log.warning("%s of %.12s: torch runs it, because no program could be made: %s", *_named(order), error)
            return
        if is_new:
            self._files.put(key, program)

    def _exported(self, order: Order) -> bytes:
        with order.file.opened() as path:
            try:
                head, model = self._children.ask(orjson.dumps(order.part), str(path).encode())
            except OSError as error:
                detail = f"expected an export within {SECONDS:g} s, got a process that ended or took longer: {error!r}"
                raise ValueError(detail) from None
        reason = orjson.loads(head).get("error")
        if reason is not None:
            raise ValueError(reason)
        return bytes(model)


def _named(order: Order) -> tuple[str, str]:
    return order.part["kind"], order.file.digest
