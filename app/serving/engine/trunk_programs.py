"""Programs of a target for ONNX Runtime, one for each set of outputs that modules read.

An output costs time: it is copied, and layers are not fused across it. The target alone therefore has a program of its
own, and always runs as this one. A set of modules runs as the smallest program with all outputs that they read.
"""

import threading
from collections import Counter, OrderedDict

from torch import Tensor

from app.serving.engine.exporter import Exporter, Order, StoredFile
from app.serving.engine.exporting import trunk_order
from app.serving.engine.parts import Reads, ReadTrunk
from app.serving.engine.sessions import Session, checked
from pnc_core.graph.positions import Traced

KEPT = 4
"""Most programs of a target in memory, since each holds the weights. The program of the target alone always stays."""
MISSES = 16
"""Batches without a program for their outputs, after which such a program is asked for."""


class TrunkPrograms:
    """Programs of one target.

    Args:
        traced: The traced target.
        example: A few preprocessed images, with which programs are compared with the target.
        exporter: Makes the programs.
        file: The target's weights in the store.
        threads: Number of threads of a program.
    """

    def __init__(self, traced: Traced, example: Tensor, exporter: Exporter, file: StoredFile, threads: int) -> None:
        self._traced, self._example, self._threads = traced, example, threads
        self._exporter, self._file = exporter, file
        self._lock = threading.Lock()
        self._ready: OrderedDict[Reads, Session] = OrderedDict()
        self._asked: set[Reads] = set()
        self._missed: Counter[Reads] = Counter()

    def ask(self, reads: Reads) -> None:
        """Ask for a program with these outputs, unless there is one with at least them."""
        with self._lock:
            if reads in self._asked or self._best(reads) is not None:
                return
            self._asked.add(reads)
        self._exporter.ask(self._order(reads), self._receive)

    def has_failed(self, reads: Reads) -> bool:
        """Whether the program with these outputs cannot be made."""
        return self._exporter.has_failed(self._order(reads))

    def _order(self, reads: Reads) -> Order:
        return Order(self._file, trunk_order(self._traced.spec, reads))

    def find(self, reads: Reads) -> tuple[Reads, Session] | None:
        """A program with at least these outputs, and its outputs; None: there is none yet."""
        with self._lock:
            best = self._best(reads)
            if best is not None:
                self._ready.move_to_end(best)
                return best, self._ready[best]
            self._missed[reads] += 1
            is_frequent = self._missed[reads] == MISSES
        if is_frequent:
            self.ask(reads)
        return None

    def _best(self, reads: Reads) -> Reads | None:
        if reads in self._ready:
            return reads
        fitting = [made for made in self._ready if reads != Reads() and made.covers(reads)]
        return min(fitting, key=lambda made: (sum(taps for _, taps in made.pools), len(made.entries)), default=None)

    def _receive(self, order: Order, model: bytes) -> None:
        """Compare a program with the target, and use it from now on."""
        reads = Reads.of(order.part["entries"], order.part["pools"])
        original = ReadTrunk(self._traced, reads, fold=False).eval()
        session = checked(Session(model, ("images",), self._threads), original, (self._example,))
        with self._lock:
            self._ready[reads] = session
            del self._missed[reads]
            others = [made for made in self._ready if made != Reads()]
            for made in others[: max(0, len(others) - KEPT + 1)]:
                del self._ready[made]
                self._asked.discard(made)
                del self._missed[made]
