"""The inference thread and its bounded queue.

Waiting requests are answered in batches. Requests for one target share a batch, even with
different modules: the target's trunk runs once for the whole batch, then
each set of modules answers its own rows. Long requests run in slices (`app.serving.engine.turns`).

If only some batch sizes are allowed, a batch is padded with zeros. `deterministic` mode allows one size.
The rounding of a kernel depends on the shape of the batch and not on other rows, so that the answer to an
image does not depend on other requests.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from app.serving.engine import metrics
from app.serving.engine.capacity import Capacity, Overloaded, TooLate
from app.serving.engine.pace import Pace
from app.serving.engine.programs import Program, Trunk
from app.serving.engine.turns import Batch, NotFinite, PendingRequest, RequestQueue
from pnc_core.images import Views

log = logging.getLogger(__name__)
CLOSE_SECONDS = 10.0
"""Longest wait for the running batch at the end of the process."""


class Stopped(Exception):
    """The inference thread has ended, or is stuck in a batch."""


@dataclass(frozen=True)
class Limits:
    """Limits of the queue and of batches."""

    batch: int = 16
    """Most images in a batch."""
    wait: float = 0.001
    """Seconds for which a batch waits for further images when the device is free."""
    waiting: int = 256
    """Most requests that wait or run; further ones are refused."""
    images: int = 2**15
    """Most images of these requests."""
    share: float = 1.0
    """Largest share of one workspace in both limits."""
    stuck: float = 60.0
    """Seconds after which a running batch counts as stuck."""
    sizes: tuple[int, ...] = ()
    """Allowed batch sizes, ascending; empty: any."""

    def size(self, rows: int) -> int:
        """Batch size for a number of images."""
        return next((size for size in self.sizes if size >= rows), rows)

    @property
    def tried(self) -> tuple[int, ...]:
        """Batch sizes with which a program is warmed up."""
        return self.sizes or (1, self.batch)


Settled = list[tuple[PendingRequest, Tensor | Exception]]


class Engine:
    """Runs programs on one device.

    Args:
        limits: Limits of the queue and of batches.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._requests = Capacity(limits.waiting, limits.share)
        self._images = Capacity(limits.images, limits.share)
        self._inbox: queue.SimpleQueue[PendingRequest | None] = queue.SimpleQueue()
        self._queue = RequestQueue()
        self._paces: WeakKeyDictionary[Trunk, Pace] = WeakKeyDictionary()
        self._closing = False
        self._busy: float | None = None
        """Start of the running batch on the monotonic clock; None: no batch is running."""
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)

    def start(self) -> None:
        """Start the inference thread."""
        self._thread.start()

    def close(self) -> None:
        """Answer all waiting requests, then end the inference thread."""
        self._inbox.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.error("the inference thread has not ended within %g s and is abandoned", CLOSE_SECONDS)

    def trouble(self) -> str | None:
        """Message about an inference thread that has ended or is stuck; None: it runs."""
        if self._thread.ident is not None and not self._thread.is_alive():
            return "expected an inference thread that runs, got one that has ended; restart the serving process"
        busy = self._busy
        if busy is not None and time.monotonic() - busy > self.limits.stuck:
            return (
                f"expected a batch to take at most {self.limits.stuck:g} s, got one that has taken longer; "
                "restart the serving process"
            )
        return None

    async def ask(
        self, program: Program, images: Tensor | Views, seconds: float, place: tuple[str, str] = ("", "")
    ) -> Tensor:
        """Logits (N, classes) of images.

        Args:
            program: The program to run.
            images: uint8 pixels, or float32 images preprocessed for the target, (N, C, H, W), N at least 1; or views
                of the images.
            seconds: Time limit.
            place: Workspace and deployment, which take turns.

        Returns:
            float32 (N, classes) on the processor.

        Raises:
            Overloaded: too many requests or images are waiting.
            TooLate: the time limit has passed.
            NotFinite: a logit is inf or nan.
            Stopped: the inference thread has ended or is stuck.
        """
        reason = self.trouble()
        if reason is not None:
            raise Stopped(reason)
        try:
            with self._requests.taken(place[0], 1), self._images.taken(place[0], len(images)):
                return await self._answer(program, Views.of(images), seconds, place)
        except Overloaded:
            metrics.TURNED_AWAY.labels("queue_full").inc()
            raise

    async def _answer(self, program: Program, images: Views, seconds: float, place: tuple[str, str]) -> Tensor:
        loop = asyncio.get_running_loop()
        request = PendingRequest(program, images, loop.create_future(), *place)
        timer = loop.call_later(seconds, request.settle, TooLate())
        self._inbox.put(request)
        try:
            return await request.answer
        except TooLate:
            metrics.TURNED_AWAY.labels("too_late").inc()
            raise
        except asyncio.CancelledError:
            metrics.TURNED_AWAY.labels("given_up").inc()
            raise
        finally:
            timer.cancel()
            request.images = None  # frees the memory, since the request may still be queued

    def answer_now(self, program: Program, images: Tensor) -> Tensor:
        """Logits as from `ask`, computed in the caller's thread, to test a program before it is served."""
        return torch.cat([self._run([(program, Views(part))])[0] for part in images.split(self.limits.batch)])

    def answer_beside(self, program: Program, images: Views) -> Tensor:
        """Logits as from `ask`, computed in the caller's thread as one batch that does not count for the pace."""
        return self._computed([(program, images)])[0]

    @property
    def is_idle(self) -> bool:
        """Whether no request waits or runs."""
        return self._busy is None and self._inbox.empty() and not len(self._queue)

    def _work(self) -> None:
        while len(self._queue) or not self._closing:
            batch = self._gather()
            if batch.slices:
                self._busy = time.monotonic()
                self._settle(batch)
                self._busy = None

    def _gather(self) -> Batch:
        """Collect the next batch. All its requests are of one kind."""
        waiting, batch = self._queue, Batch(self.limits.batch)
        arrived = self._next(0.0 if len(waiting) else None)
        while arrived is not None:
            waiting.add(arrived)
            arrived = self._next(0.0)
        first = waiting.first()
        kind = None if first is None else first.kind()
        if first is None or kind is None:
            return batch
        batch.begin(kind, self._pace(first.program.trunk).slice())
        waiting.fill(batch)
        until = time.monotonic() + self.limits.wait
        while batch.slices and not (batch.is_full or batch.has_cut or len(waiting) >= self.limits.batch):
            request = self._next(until)
            if request is None:
                break
            waiting.add(request)
            waiting.fill(batch)
        return batch

    def _next(self, until: float | None) -> PendingRequest | None:
        """The next request from the inbox; None: the time is over, or the engine closes."""
        if self._closing:
            until = 0.0
        try:
            left = None if until is None else until - time.monotonic()
            request = self._inbox.get(timeout=left) if left is None or left > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None
        self._closing = self._closing or request is None
        return request

    def _settle(self, batch: Batch) -> None:
        begun = time.monotonic()
        for one in batch.slices:
            if one.start == 0:
                metrics.QUEUE_SECONDS.observe(begun - one.request.asked)
        try:
            answers = self._run([(one.request.program, one.images) for one in batch.slices])
        except Exception as error:
            log.exception("a batch of %d requests failed", len(batch.slices))
            _deliver([(one.request, error) for one in batch.slices])
            return
        metrics.COMPUTE_SECONDS.observe(time.monotonic() - begun)
        metrics.BATCH_IMAGES.observe(batch.rows)
        settled = [
            (one.request, one.request.receive(one.start, a)) for one, a in zip(batch.slices, answers, strict=True)
        ]
        _deliver([(request, answer) for request, answer in settled if answer is not None])

    def _pace(self, trunk: Trunk) -> Pace:
        return self._paces.setdefault(trunk, Pace(self.limits.batch))

    def _run(self, asked: Sequence[tuple[Program, Views]]) -> list[Tensor]:
        begun, trunk = time.monotonic(), asked[0][0].trunk
        answers = self._computed(asked)
        rows = sum(len(images) for _, images in asked)
        self._pace(trunk).note(self.limits.size(rows), time.monotonic() - begun)
        return answers

    def _computed(self, asked: Sequence[tuple[Program, Views]]) -> list[Tensor]:
        sizes = [len(images) for _, images in asked]
        with torch.inference_mode():
            images = Views.cat([images for _, images in asked])
            images = images.map(partial(_padded, size=self.limits.size(len(images))))
            return [answer.cpu() for answer in self._together([program for program, _ in asked], images, sizes)]

    def _together(self, programs: list[Program], images: Views, sizes: list[int]) -> list[Tensor]:
        """Answers for all rows: the trunk runs once, and every program answers its own rows."""
        distinct = list(dict.fromkeys(programs))
        trunk = distinct[0].trunk
        branches = {branch for program in distinct for branch in program.branches}
        heads = {head for program in distinct for head in program.heads}
        output = trunk.read(trunk.prepare(images), branches, images, heads)
        if len(distinct) == 1:
            return list(distinct[0].answer(output)[: sum(sizes)].split(sizes))
        owners = torch.tensor([distinct.index(p) for p, size in zip(programs, sizes, strict=True) for _ in range(size)])
        answers: dict[int, Tensor] = {}
        for number, program in enumerate(distinct):
            rows = torch.nonzero(owners == number).flatten()
            some = partial(_rows, rows=rows.to(output.old.device), size=self.limits.size(len(rows)))
            places = [i for i, owner in enumerate(programs) if owner is program]
            logits = program.answer(output.rows(some, program.branches, program.common))[: len(rows)]
            answers |= zip(places, logits.split([sizes[i] for i in places]), strict=True)
        return [answers[place] for place in range(len(programs))]


def _rows(tensor: Tensor, rows: Tensor, size: int) -> Tensor:
    return _padded(tensor[rows], size)


def _padded(rows: Tensor, size: int) -> Tensor:
    """Append rows of zeros up to `size` rows."""
    short = size - len(rows)
    return torch.cat([rows, rows.new_zeros(short, *rows.shape[1:])]) if short > 0 else rows


def _deliver(settled: Settled) -> None:
    """Deliver answers with one call to each event loop."""
    loops = {request.answer.get_loop() for request, _ in settled}
    for loop in loops:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_settle_all, [pair for pair in settled if pair[0].answer.get_loop() is loop])


def _settle_all(settled: Settled) -> None:
    for request, answer in settled:
        request.settle(answer)


__all__ = ["Engine", "Limits", "NotFinite", "Overloaded", "Stopped", "TooLate"]
