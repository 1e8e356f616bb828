"""The queue of requests for the device. Requests are cut into slices, and slices take turns.

Workspaces take turns; in a workspace its deployments; in a deployment its requests. A turn is one slice. A
request with more images than a slice goes to the end of its queue and waits for its next turn.
Requests of one kind share a batch, so that several turns may happen together.

Only the inference thread uses the queue. A request that was abandoned, failed or timed out already has its answer, and
is dropped when its turn comes.
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
    """A logit of an image is inf or nan.

    Args:
        image: Index of the image in the request, from 0.
    """

    def __init__(self, image: int) -> None:
        super().__init__(f"expected finite logits, got inf or nan for image {image}; send ordinary pixel values")
        self.image = image


@dataclass(eq=False)
class PendingRequest:
    """Images for one program."""

    program: Program
    images: Views | None
    """uint8 pixels, or float32 images preprocessed for the target, (N, C, H, W); None: the request has ended."""
    answer: "asyncio.Future[Tensor]"
    workspace: str = ""
    deployment: str = ""
    asked: float = field(default_factory=time.monotonic)
    begun: int = 0
    """Number of images that are already in a batch."""
    _logits: Tensor | None = None
    """Logits of all slices, float32 (N, classes); allocated with the first of several slices."""

    def kind(self) -> Kind | None:
        """Trunk, dtype and shape of images: requests of one kind share a batch. None: the request has ended."""
        images = self.images
        if images is None or self.answer.done():
            return None
        plain = images.plain
        return id(self.program.trunk), plain.dtype, plain.shape[1:], frozenset(images.fitted)

    @property
    def left(self) -> int:
        """Number of images that are in no batch yet."""
        images = self.images
        return 0 if images is None else len(images) - self.begun

    def receive(self, start: int, logits: Tensor) -> "Tensor | NotFinite | None":
        """Store the logits of one slice.

        Args:
            start: Index of the slice's first image.
            logits: float32 (n, classes).

        Returns:
            All logits after the last slice, or the error that a logit is not finite; None: slices are missing.
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
        """Set the answer, unless the request has ended. Call it on the request's event loop."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


@dataclass(frozen=True)
class Slice:
    """Consecutive images of a request."""

    request: PendingRequest
    start: int
    images: Views


class Batch:
    """Slices of one kind that run together.

    Args:
        most: Most images of the batch.
    """

    def __init__(self, most: int) -> None:
        self.slices: list[Slice] = []
        self.rows = 0
        self.has_cut = False
        """Whether images of one of its requests did not fit."""
        self._most = most
        self._pace = most
        self._kind: Kind | None = None

    @property
    def is_full(self) -> bool:
        """Whether the batch has its largest size."""
        return self.rows >= self._most

    def begin(self, kind: Kind, pace: int) -> None:
        """Set the kind and the size of slices.

        Args:
            kind: Kind of all requests.
            pace: Size up to which a slice of a long request may fill the batch.
        """
        self._kind, self._pace = kind, min(pace, self._most)

    def room(self, request: PendingRequest, kind: Kind) -> int:
        """Number of images of a request that fit. Only a request longer than a slice is cut."""
        if kind != self._kind:
            return 0
        if request.left <= self._pace and request.begun == 0:
            return request.left if self.rows + request.left <= self._most else 0
        return max(0, min(request.left, self._pace - self.rows))

    def add(self, request: PendingRequest, rows: int) -> None:
        """Add the next `rows` images of a request."""
        start, images = request.begun, request.images
        if images is None:  # the request has just ended
            return
        request.begun += rows
        self.slices.append(Slice(request, start, images[start : start + rows]))
        self.rows += rows
        self.has_cut = self.has_cut or request.left > 0


class RequestQueue:
    """Requests by workspace and deployment, in the order of their turns."""

    def __init__(self) -> None:
        self._spaces: OrderedDict[str, OrderedDict[str, deque[PendingRequest]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, request: PendingRequest) -> None:
        """Add a request at the end of its deployment's queue."""
        deployments = self._spaces.setdefault(request.workspace, OrderedDict())
        deployments.setdefault(request.deployment, deque()).append(request)
        self._count += 1

    def first(self) -> PendingRequest | None:
        """The request whose turn it is; None: the queue is empty."""
        while self._spaces:
            space, deployments = next(iter(self._spaces.items()))
            deployment, requests = next(iter(deployments.items()))
            if requests[0].kind() is not None and requests[0].left:
                return requests[0]
            requests.popleft()
            self._dropped(space, deployment)
        return None

    def fill(self, batch: Batch) -> None:
        """Fill a batch: one slice of each deployment, then another one of each, until no slice fits."""
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
        """Add a slice of the first request that fits; its workspace and deployment go to the end of the queue."""
        deployments = self._spaces[space]
        requests, place = deployments[deployment], 0
        while place < len(requests):
            request = requests[place]
            kind = request.kind()
            if kind is None:
                del requests[place]
                self._dropped(space, deployment)
                continue
            rows = batch.room(request, kind)
            if rows:
                batch.add(request, rows)
                del requests[place]
                if place == 0:  # otherwise the first request, of another kind, keeps its turn
                    self._spaces.move_to_end(space)
                    deployments.move_to_end(deployment)
                if request.left:
                    requests.append(request)
                else:
                    self._dropped(space, deployment)
                return
            place += 1

    def _dropped(self, space: str, deployment: str) -> None:
        """Count a removed request, and remove queues that are empty."""
        self._count -= 1
        deployments = self._spaces[space]
        if not deployments[deployment]:
            del deployments[deployment]
        if not deployments:
            del self._spaces[space]
