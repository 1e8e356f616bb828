"""One thread that runs networks, and a bounded queue in front of it.

Requests that wait are answered together. Those of one target share its trunk, whichever
modules each of them asked for: the target is read once for the whole batch, then
every set of modules answers for its own rows.

Where only some sizes of batches are allowed, a batch is filled up with zeros. In `deterministic` mode
there is one: kernels round by shape, not by neighbours, so that an image has one answer whatever else is asked.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from app.serving import metrics
from app.serving.programs import Program

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
    sizes: tuple[int, ...] = ()
    """Sizes that batches may have, ascending; none: any."""

    def size(self, rows: int) -> int:
        """Of a batch for so many images."""
        return next((size for size in self.sizes if size >= rows), rows)

    @property
    def tried(self) -> tuple[int, ...]:
        """Sizes of batches that a program is warmed up with."""
        return self.sizes or (1, self.batch)


@dataclass(eq=False)
class Question:
    """Images for one program."""

    program: Program
    images: Tensor
    """uint8 pixels, or float32 that are preprocessed already, (N, C, H, W)."""
    deadline: float
    """On the monotonic clock."""
    answer: "asyncio.Future[Tensor]"
    asked: float = field(default_factory=time.monotonic)

    def kind(self) -> tuple[int, torch.dtype, torch.Size]:
        """Questions of one kind can share a batch: same trunk, same kind of image."""
        return id(self.program.trunk), self.images.dtype, self.images.shape[1:]

    def settle(self, answer: Tensor | Exception) -> None:
        """On the asker's own event loop, unless it has given up."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


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
    """Runs programs on one device.

    Args:
        limits: How requests are gathered.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer what waits, then end."""
        self._waiting.put(None)
        self._thread.join()

    async def ask(self, program: Program, images: Tensor, seconds: float) -> Tensor:
        """Logits (N, classes) of images.

        Args:
            program: What answers.
            images: uint8 pixels, or preprocessed float32, (N, C, H, W), N at least 1.
            seconds: How long the answer is of use.

        Raises:
            Overloaded: too many requests wait already.
            TooLate: the time was over before it was this request's turn.
        """
        if self._waiting.qsize() >= self.limits.waiting:
            metrics.TURNED_AWAY.labels("queue_full").inc()
            raise Overloaded
        answer: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        self._waiting.put(Question(program, images, time.monotonic() + seconds, answer))
        return await answer

    def answer_now(self, program: Program, images: Tensor) -> Tensor:
        """The same in the caller's own thread, in batches of its own: to try a program out."""
        return torch.cat([self._run([(program, part)])[0] for part in images.split(self.limits.batch)])

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
            answers: Sequence[Tensor | Exception] = self._chunks(batch)
        except Exception as error:
            log.exception("a batch of %d requests failed", len(batch))
            answers = [error] * len(batch)
        else:
            metrics.COMPUTE_SECONDS.observe(time.monotonic() - begun)
            metrics.BATCH_IMAGES.observe(sum(len(question.images) for question in batch))
        _deliver(list(zip(batch, answers, strict=True)))

    def _chunks(self, batch: list[Question]) -> list[Tensor]:
        if len(batch) == 1 and len(batch[0].images) > self.limits.batch:
            return [self.answer_now(batch[0].program, batch[0].images)]
        return self._run([(question.program, question.images) for question in batch])

    def _run(self, asked: Sequence[tuple[Program, Tensor]]) -> list[Tensor]:
        sizes = [len(images) for _, images in asked]
        with torch.inference_mode():
            images = asked[0][1] if len(asked) == 1 else torch.cat([images for _, images in asked])
            x = asked[0][0].trunk.prepare(_filled(images, self.limits.size(len(images))))
            return [answer.cpu() for answer in self._together([program for program, _ in asked], x, sizes)]

    def _together(self, programs: list[Program], x: Tensor, sizes: list[int]) -> list[Tensor]:
        """Answers for all rows; the trunk is read once, and every program answers for its own."""
        distinct = list(dict.fromkeys(programs))
        reading = distinct[0].trunk.read(x, {branch for program in distinct for branch in program.branches})
        if len(distinct) == 1:
            return list(distinct[0].answer(reading)[: sum(sizes)].split(sizes))
        owners = torch.tensor([distinct.index(p) for p, size in zip(programs, sizes, strict=True) for _ in range(size)])
        answers: dict[int, Tensor] = {}
        for number, program in enumerate(distinct):
            rows = torch.nonzero(owners == number).flatten()
            some = partial(_rows, rows=rows.to(x.device), size=self.limits.size(len(rows)))
            places = [i for i, owner in enumerate(programs) if owner is program]
            logits = program.answer(reading.rows(some, program.branches))[: len(rows)]
            answers |= zip(places, logits.split([sizes[i] for i in places]), strict=True)
        return [answers[place] for place in range(len(programs))]


def _rows(tensor: Tensor, rows: Tensor, size: int) -> Tensor:
    return _filled(tensor[rows], size)


def _filled(rows: Tensor, size: int) -> Tensor:
    """Rows of zeros behind the real ones, up to `size`."""
    short = size - len(rows)
    return torch.cat([rows, rows.new_zeros(short, *rows.shape[1:])]) if short > 0 else rows


def _deliver(settled: list[tuple[Question, Tensor | Exception]]) -> None:
    """Wake each asker's event loop once, however many answers there are for it."""
    loops = {question.answer.get_loop() for question, _ in settled}
    for loop in loops:
        loop.call_soon_threadsafe(_settle_all, [pair for pair in settled if pair[0].answer.get_loop() is loop])


def _settle_all(settled: list[tuple[Question, Tensor | Exception]]) -> None:
    for question, answer in settled:
        question.settle(answer)


def _still_wanted(question: Question) -> bool:
    """Claim a question; those that were given up or are too late are settled here."""
    if question.answer.cancelled():
        metrics.TURNED_AWAY.labels("given_up").inc()
        return False
    if time.monotonic() > question.deadline:
        metrics.TURNED_AWAY.labels("too_late").inc()
        _deliver([(question, TooLate())])
        return False
    return True
