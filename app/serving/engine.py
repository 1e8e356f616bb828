"""One thread that runs networks, and a bounded queue in front of it.

Requests that wait are answered together. Those of one target share its trunk, whichever
modules each of them asked for: the target is read once for the whole batch, then
every set of modules answers for its own rows.

In `deterministic` mode every batch has one shape, filled up with zeros: kernels
round by shape, not by neighbours, so that an image has one answer whatever else is asked.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from app.serving import metrics
from pnc_core.composed import Composed
from pnc_core.positions import Reader, Traced

log = logging.getLogger(__name__)


class Overloaded(Exception):
    """The queue is full."""


class TooLate(Exception):
    """The deadline passed while the request waited."""


@dataclass(frozen=True)
class Limits:
    """How requests are gathered."""

    batch: int = 16
    """Images in one batch, at most."""
    wait: float = 0.001
    """Seconds that a batch waits for company once the device is free."""
    waiting: int = 256
    """Requests that may wait; more are turned away."""
    deterministic: bool = False
    """One shape for all batches."""


@dataclass(eq=False)
class Question:
    """Images for one network."""

    network: Composed
    images: Tensor
    """Preprocessed float32 (N, C, H, W)."""
    deadline: float
    """On the monotonic clock."""
    answer: "Future[Tensor]" = field(default_factory=Future)
    asked: float = field(default_factory=time.monotonic)

    def kind(self) -> tuple[int, torch.Size]:
        """Questions of one kind can share a batch: same target, same shape of image."""
        return id(self.network.target), self.images.shape[1:]


class _Batch:
    """Questions that are run together, and those that were taken up but do not fit."""

    def __init__(self, most: int) -> None:
        self.taken: list[Question] = []
        self.others: list[Question] = []
        self._most, self._rows = most, 0

    @property
    def is_full(self) -> bool:
        """Does no other question fit, or wait too many of another kind?"""
        return self._rows >= self._most or len(self.others) >= self._most

    def add(self, question: Question) -> None:
        """Take a question if it fits and somebody still wants the answer."""
        rows = self._rows + len(question.images)
        if self.taken and (rows > self._most or question.kind() != self.taken[0].kind()):
            self.others.append(question)
        elif _still_wanted(question):
            self.taken.append(question)
            self._rows = rows


class Engine:
    """Runs networks on one device.

    Args:
        limits: How requests are gathered.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: queue.Queue[Question | None] = queue.Queue()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer what waits, then end."""
        self._waiting.put(None)
        self._thread.join()

    async def ask(self, network: Composed, images: Tensor, seconds: float) -> Tensor:
        """Logits (N, classes) of images.

        Args:
            network: What answers.
            images: Preprocessed float32 (N, C, H, W), N at least 1.
            seconds: How long the answer is of use.

        Raises:
            Overloaded: too many requests wait already.
            TooLate: the time was over before it was this request's turn.
        """
        if self._waiting.qsize() >= self.limits.waiting:
            metrics.TURNED_AWAY.labels("queue_full").inc()
            raise Overloaded
        question = Question(network, images, time.monotonic() + seconds)
        self._waiting.put(question)
        return await asyncio.wrap_future(question.answer)

    def answer_now(self, network: Composed, images: Tensor) -> Tensor:
        """The same in the caller's own thread, in a batch of its own: to try a network out."""
        return torch.cat([self._run([(network, part)])[0] for part in images.split(self.limits.batch)])

    def shapes(self) -> tuple[int, ...]:
        """Sizes of batches that a network is to be warmed up with."""
        return (self.limits.batch,) if self.limits.deterministic else (1, self.limits.batch)

    def _work(self) -> None:
        held: list[Question] = []
        while held or not self._closing:
            batch, held = self._gather(held)
            if batch:
                self._settle(batch)

    def _gather(self, held: list[Question]) -> tuple[list[Question], list[Question]]:
        """The next batch, all of one kind, and what has to wait for another."""
        batch = _Batch(self.limits.batch)
        first = None if held else self._next(None)
        for waiting in held if first is None else [first]:
            batch.add(waiting)
        until = time.monotonic() + self.limits.wait
        while batch.taken and not batch.is_full:
            question = self._next(until)
            if question is None:
                break
            batch.add(question)
        return batch.taken, batch.others

    def _next(self, until: float | None) -> Question | None:
        """What comes next; None when the time is over, or nothing will come any more."""
        if self._closing:
            until = 0.0
        try:
            left = None if until is None else until - time.monotonic()
            question = self._waiting.get(timeout=left) if left is None or left > 0 else self._waiting.get_nowait()
        except queue.Empty:
            return None
        self._closing = self._closing or question is None
        return question

    def _settle(self, batch: list[Question]) -> None:
        begun = time.monotonic()
        for question in batch:
            metrics.QUEUE_SECONDS.observe(begun - question.asked)
        try:
            answers = self._chunks(batch)
        except Exception as error:
            log.exception("a batch of %d requests failed", len(batch))
            for question in batch:
                question.answer.set_exception(error)
            return
        metrics.COMPUTE_SECONDS.observe(time.monotonic() - begun)
        metrics.BATCH_IMAGES.observe(sum(len(question.images) for question in batch))
        for question, answer in zip(batch, answers, strict=True):
            question.answer.set_result(answer)

    def _chunks(self, batch: list[Question]) -> list[Tensor]:
        if len(batch) == 1 and len(batch[0].images) > self.limits.batch:
            return [self.answer_now(batch[0].network, batch[0].images)]
        return self._run([(question.network, question.images) for question in batch])

    def _run(self, asked: Sequence[tuple[Composed, Tensor]]) -> list[Tensor]:
        sizes = [len(images) for _, images in asked]
        with torch.inference_mode():
            images = asked[0][1] if len(asked) == 1 else torch.cat([images for _, images in asked])
            if self.limits.deterministic:
                images = _filled(images, self.limits.batch)
            return self._together([network for network, _ in asked], images, sizes)

    def _together(self, networks: list[Composed], images: Tensor, sizes: list[int]) -> list[Tensor]:
        """Answers for all rows; the trunk is read once, and every network answers for its own."""
        distinct = list(dict.fromkeys(networks))
        if len(distinct) == 1:
            return list(distinct[0](images)[: sum(sizes)].split(sizes))
        names = tuple(sorted({name for network in distinct for name in network.reads}))
        old, activations = _trunk(distinct[0].traced, names)(images)
        owners = torch.tensor([distinct.index(n) for n, size in zip(networks, sizes, strict=True) for _ in range(size)])
        answers: list[Tensor | None] = [None] * len(networks)
        for number, network in enumerate(distinct):
            rows = torch.nonzero(owners == number).flatten()
            mine = {name: activations[name][rows] for name in network.reads}
            few = old[rows]
            if self.limits.deterministic:
                mine, few = {n: _filled(a, self.limits.batch) for n, a in mine.items()}, _filled(few, self.limits.batch)
            places = [i for i, owner in enumerate(networks) if owner is network]
            parts = network.answer(few, mine)[: len(rows)].split([sizes[i] for i in places])
            for place, part in zip(places, parts, strict=True):
                answers[place] = part
        return [answer for answer in answers if answer is not None]


@lru_cache(maxsize=16)
def _trunk(traced: Traced, names: tuple[str, ...]) -> Reader:
    """Reads a target for several networks at once."""
    return Reader(traced, names)


def _filled(rows: Tensor, size: int) -> Tensor:
    """Rows of zeros behind the real ones, up to `size`."""
    short = size - len(rows)
    return torch.cat([rows, rows.new_zeros(short, *rows.shape[1:])]) if short > 0 else rows


def _still_wanted(question: Question) -> bool:
    """Claim a question; those that were given up or are too late are settled here."""
    if not question.answer.set_running_or_notify_cancel():
        metrics.TURNED_AWAY.labels("given_up").inc()
        return False
    if time.monotonic() > question.deadline:
        metrics.TURNED_AWAY.labels("too_late").inc()
        question.answer.set_exception(TooLate())
        return False
    return True
