"""One thread that runs networks, and a bounded line in front of it.

Requests that wait are answered together. Those of one target share its trunk, whichever
modules each of them asked for: the target is read once for the whole batch, then
every set of modules answers for its own rows. Long requests are run in slices (see `line`).

Where only some sizes of batches are allowed, a batch is filled up with zeros. In `deterministic` mode
there is one: kernels round by shape, not by neighbours, so that an image has one answer whatever else is asked.
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
from app.serving.engine.capacity import Overloaded, Room, TooLate
from app.serving.engine.pace import Pace
from app.serving.engine.programs import Program, Trunk
from app.serving.engine.turns import Batch, Line, NotFinite, Question
from pnc_core.images import Views

log = logging.getLogger(__name__)
CLOSE_SECONDS = 10.0
"""How long the end of the process waits for the batch that is being run."""


class Stopped(Exception):
    """The thread that runs networks has ended, or does not come back from a batch."""


@dataclass(frozen=True)
class Limits:
    """How requests are gathered."""

    batch: int = 16
    """Images in one batch, at most."""
    wait: float = 0.001
    """Seconds that a batch waits for company once the device is free."""
    waiting: int = 256
    """Requests that may wait or be run; more are turned away."""
    images: int = 2**15
    """Their images, all together."""
    share: float = 1.0
    """Of both, for one workspace."""
    stuck: float = 60.0
    """Seconds after which a batch is taken for one that never ends."""
    sizes: tuple[int, ...] = ()
    """Sizes that batches may have, ascending; none: any."""

    def size(self, rows: int) -> int:
        """Of a batch for so many images."""
        return next((size for size in self.sizes if size >= rows), rows)

    @property
    def tried(self) -> tuple[int, ...]:
        """Sizes of batches that a program is warmed up with."""
        return self.sizes or (1, self.batch)


Settled = list[tuple[Question, Tensor | Exception]]


class Engine:
    """Runs programs on one device.

    Args:
        limits: How requests are gathered.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._requests = Room(limits.waiting, limits.share)
        self._images = Room(limits.images, limits.share)
        self._inbox: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._line = Line()
        self._paces: WeakKeyDictionary[Trunk, Pace] = WeakKeyDictionary()
        self._closing = False
        self._busy: float | None = None
        """Since when a batch is being run, on the monotonic clock."""
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer what waits, then end."""
        self._inbox.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.error("the inference thread has not ended within %g s and is left behind", CLOSE_SECONDS)

    def trouble(self) -> str | None:
        """Why nothing is answered any more, if so."""
        if self._thread.ident is not None and not self._thread.is_alive():
            return "expected a thread that runs networks, got one that has ended; start the serving process again"
        busy = self._busy
        if busy is not None and time.monotonic() - busy > self.limits.stuck:
            return (
                f"expected a batch to take at most {self.limits.stuck:g} s, got one that has taken longer; "
                "start the serving process again"
            )
        return None

    async def ask(
        self, program: Program, images: Tensor | Views, seconds: float, place: tuple[str, str] = ("", "")
    ) -> Tensor:
        """Logits (N, classes) of images.

        Args:
            program: What answers.
            images: uint8 images, or float32 images that are preprocessed for the target, N at least 1.
            seconds: How long the answer is of use.
            place: Workspace and deployment, which take turns.

        Raises:
            Overloaded: too many requests or images wait already.
            TooLate: the time was over before all images were answered.
            NotFinite: the network gave inf or nan.
            Stopped: nothing is answered any more.
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
        question = Question(program, images, loop.create_future(), *place)
        timer = loop.call_later(seconds, question.settle, TooLate())
        self._inbox.put(question)
        try:
            return await question.answer
        except TooLate:
            metrics.TURNED_AWAY.labels("too_late").inc()
            raise
        except asyncio.CancelledError:
            metrics.TURNED_AWAY.labels("given_up").inc()
            raise
        finally:
            timer.cancel()
            question.images = None  # it may still be in the line

    def answer_now(self, program: Program, images: Tensor) -> Tensor:
        """The same in the caller's own thread, in batches of its own: to try a program out."""
        return torch.cat([self._run([(program, Views(part))])[0] for part in images.split(self.limits.batch)])

    def _work(self) -> None:
        while len(self._line) or not self._closing:
            batch = self._gather()
            if batch.slices:
                self._busy = time.monotonic()
                self._settle(batch)
                self._busy = None

    def _gather(self) -> Batch:
        """The next batch, all of one kind."""
        line, batch = self._line, Batch(self.limits.batch)
        arrived = self._next(0.0 if len(line) else None)
        while arrived is not None:
            line.add(arrived)
            arrived = self._next(0.0)
        first = line.first()
        kind = None if first is None else first.kind()
        if first is None or kind is None:
            return batch
        batch.begin(kind, self._pace(first.program.trunk).slice())
        line.fill(batch)
        until = time.monotonic() + self.limits.wait
        while batch.slices and not (batch.is_full or batch.has_cut or len(line) >= self.limits.batch):
            question = self._next(until)
            if question is None:
                break
            line.add(question)
            line.fill(batch)
        return batch

    def _next(self, until: float | None) -> Question | None:
        """What comes next; None when the time is over, or nothing will come any more."""
        if self._closing:
            until = 0.0
        try:
            left = None if until is None else until - time.monotonic()
            question = self._inbox.get(timeout=left) if left is None or left > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None
        self._closing = self._closing or question is None
        return question

    def _settle(self, batch: Batch) -> None:
        begun = time.monotonic()
        for one in batch.slices:
            if one.start == 0:
                metrics.QUEUE_SECONDS.observe(begun - one.question.asked)
        try:
            answers = self._run([(one.question.program, one.images) for one in batch.slices])
        except Exception as error:
            log.exception("a batch of %d requests failed", len(batch.slices))
            _deliver([(one.question, error) for one in batch.slices])
            return
        metrics.COMPUTE_SECONDS.observe(time.monotonic() - begun)
        metrics.BATCH_IMAGES.observe(batch.rows)
        settled = [
            (one.question, one.question.receive(one.start, a)) for one, a in zip(batch.slices, answers, strict=True)
        ]
        _deliver([(question, answer) for question, answer in settled if answer is not None])

    def _pace(self, trunk: Trunk) -> Pace:
        return self._paces.setdefault(trunk, Pace(self.limits.batch))

    def _run(self, asked: Sequence[tuple[Program, Views]]) -> list[Tensor]:
        begun, trunk = time.monotonic(), asked[0][0].trunk
        sizes = [len(images) for _, images in asked]
        with torch.inference_mode():
            images = Views.cat([images for _, images in asked])
            images = images.map(partial(_filled, size=self.limits.size(len(images))))
            answers = [answer.cpu() for answer in self._together([program for program, _ in asked], images, sizes)]
        self._pace(trunk).note(len(images), time.monotonic() - begun)
        return answers

    def _together(self, programs: list[Program], images: Views, sizes: list[int]) -> list[Tensor]:
        """Answers for all rows; the trunk is read once, and every program answers for its own."""
        distinct = list(dict.fromkeys(programs))
        trunk = distinct[0].trunk
        output = trunk.read(trunk.prepare(images), {b for program in distinct for b in program.branches}, images)
        if len(distinct) == 1:
            return list(distinct[0].answer(output)[: sum(sizes)].split(sizes))
        owners = torch.tensor([distinct.index(p) for p, size in zip(programs, sizes, strict=True) for _ in range(size)])
        answers: dict[int, Tensor] = {}
        for number, program in enumerate(distinct):
            rows = torch.nonzero(owners == number).flatten()
            some = partial(_rows, rows=rows.to(output.old.device), size=self.limits.size(len(rows)))
            places = [i for i, owner in enumerate(programs) if owner is program]
            logits = program.answer(output.rows(some, program.branches))[: len(rows)]
            answers |= zip(places, logits.split([sizes[i] for i in places]), strict=True)
        return [answers[place] for place in range(len(programs))]


def _rows(tensor: Tensor, rows: Tensor, size: int) -> Tensor:
    return _filled(tensor[rows], size)


def _filled(rows: Tensor, size: int) -> Tensor:
    """Rows of zeros behind the real ones, up to `size`."""
    short = size - len(rows)
    return torch.cat([rows, rows.new_zeros(short, *rows.shape[1:])]) if short > 0 else rows


def _deliver(settled: Settled) -> None:
    """Wake each asker's event loop once, however many answers there are for it."""
    loops = {question.answer.get_loop() for question, _ in settled}
    for loop in loops:
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle_all, [pair for pair in settled if pair[0].answer.get_loop() is loop])


def _settle_all(settled: Settled) -> None:
    for question, answer in settled:
        question.settle(answer)


__all__ = ["Engine", "Limits", "NotFinite", "Overloaded", "Stopped", "TooLate"]
