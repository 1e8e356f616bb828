"""Requests that wait for the device, cut into slices that take turns.

Workspaces take turns, inside a workspace its deployments, inside a deployment its requests. A turn is one slice: a
request with more images than a slice holds goes to the end of its line and waits for its next turn.
Requests of one kind share a batch, so that a turn may be taken together with others.

The line belongs to the inference thread alone. A request that was given up, failed or came too late has its answer
already: it is dropped when it is seen.
"""

import asyncio
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from app.serving.engine.programs import Program
from pnc_core.images import Views
from pnc_core.preprocessing import Geometry

Kind = tuple[int, torch.dtype, torch.Size, frozenset[Geometry]]


class NotFinite(Exception):
    """The network gave inf or nan for an image.

    Args:
        image: Its number in the request, from 0.
    """

    def __init__(self, image: int) -> None:
        super().__init__(f"expected finite logits, got inf or nan for image {image}; send an image of usual numbers")
        self.image = image


@dataclass(eq=False)
class Question:
    """Images for one program."""

    program: Program
    images: Views | None
    """uint8 images, or float32 images that are preprocessed for the target; None: the asker has gone."""
    answer: "asyncio.Future[Tensor]"
    workspace: str = ""
    deployment: str = ""
    asked: float = field(default_factory=time.monotonic)
    begun: int = 0
    """Images that have been put into a batch."""
    _logits: Tensor | None = None
    """Room for all rows (N, classes), made with the first slice when there are several."""

    def kind(self) -> Kind | None:
        """Questions of one kind can share a batch: same trunk, same kind of image. None: nobody waits for it."""
        images = self.images
        if images is None or self.answer.done():
            return None
        plain = images.plain
        return id(self.program.trunk), plain.dtype, plain.shape[1:], frozenset(images.fitted)

    @property
    def left(self) -> int:
        """Images that are in no batch yet."""
        images = self.images
        return 0 if images is None else len(images) - self.begun

    def receive(self, start: int, logits: Tensor) -> "Tensor | NotFinite | None":
        """Take the logits of one slice.

        Args:
            start: First image of the slice.
            logits: (n, classes).

        Returns:
            The whole answer with the last slice, or why there is none; None: more slices follow.
        """
        fine = np.isfinite(logits.numpy())
        if not fine.all():
            return NotFinite(start + int(fine.all(1).argmin()))
        images = self.images
        if images is None or len(images) == len(logits):
            return logits
        if self._logits is None:
            self._logits = logits.new_empty(len(images), logits.shape[1])
        self._logits[start : start + len(logits)] = logits
        return self._logits if start + len(logits) == len(images) else None

    def settle(self, answer: Tensor | Exception) -> None:
        """On the asker's own event loop, unless it has given up."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


@dataclass(frozen=True)
class Slice:
    """Some images of a question."""

    question: Question
    start: int
    images: Views


class Batch:
    """Slices of one kind that are run together.

    Args:
        most: Images that it holds.
    """

    def __init__(self, most: int) -> None:
        self.slices: list[Slice] = []
        self.rows = 0
        self.has_cut = False
        """Has one of its questions images that did not fit?"""
        self._most = most
        self._pace = most
        self._kind: Kind | None = None

    @property
    def is_full(self) -> bool:
        """Does no other question fit?"""
        return self.rows >= self._most

    def begin(self, kind: Kind, pace: int) -> None:
        """Decide what it is made of.

        Args:
            kind: Of all its questions.
            pace: Images that a cut question may fill it up to.
        """
        self._kind, self._pace = kind, min(pace, self._most)

    def room(self, question: Question, kind: Kind) -> int:
        """How many images of a question fit; it is cut only if it is longer than a slice."""
        if kind != self._kind:
            return 0
        if question.left <= self._pace and question.begun == 0:
            return question.left if self.rows + question.left <= self._most else 0
        return max(0, min(question.left, self._pace - self.rows))

    def add(self, question: Question, rows: int) -> None:
        """Take that many of its images."""
        start, images = question.begun, question.images
        if images is None:  # its asker has gone this moment
            return
        question.begun += rows
        self.slices.append(Slice(question, start, images[start : start + rows]))
        self.rows += rows
        self.has_cut = self.has_cut or question.left > 0


class Line:
    """Questions by workspace and deployment, each in the order of their next turn."""

    def __init__(self) -> None:
        self._spaces: OrderedDict[str, OrderedDict[str, deque[Question]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, question: Question) -> None:
        """One more, behind those of its deployment."""
        deployments = self._spaces.setdefault(question.workspace, OrderedDict())
        deployments.setdefault(question.deployment, deque()).append(question)
        self._count += 1

    def first(self) -> Question | None:
        """Whose turn it is; None: nobody waits."""
        while self._spaces:
            space, deployments = next(iter(self._spaces.items()))
            deployment, questions = next(iter(deployments.items()))
            if questions[0].kind() is not None and questions[0].left:
                return questions[0]
            questions.popleft()
            self._dropped(space, deployment)
        return None

    def fill(self, batch: Batch) -> None:
        """Put into a batch what fits: one question of each deployment, then one more of each, as often as it takes."""
        while True:
            before = len(batch.slices)
            for space in list(self._spaces):
                for deployment in list(self._spaces[space]):
                    if batch.is_full:
                        return
                    self._take(space, deployment, batch)
            if len(batch.slices) == before:
                return

    def _take(self, space: str, deployment: str, batch: Batch) -> None:
        """A slice of the first question that fits; what was served goes behind what was not."""
        deployments = self._spaces[space]
        questions, place = deployments[deployment], 0
        while place < len(questions):
            question = questions[place]
            kind = question.kind()
            if kind is None:
                del questions[place]
                self._dropped(space, deployment)
                continue
            rows = batch.room(question, kind)
            if rows:
                batch.add(question, rows)
                del questions[place]
                if place == 0:  # else the turn of the first question, which is of another kind, is still to come
                    self._spaces.move_to_end(space)
                    deployments.move_to_end(deployment)
                if question.left:
                    questions.append(question)
                else:
                    self._dropped(space, deployment)
                return
            place += 1

    def _dropped(self, space: str, deployment: str) -> None:
        """One question has gone; lines that are empty go as well."""
        self._count -= 1
        deployments = self._spaces[space]
        if not deployments[deployment]:
            del deployments[deployment]
        if not deployments:
            del self._spaces[space]
