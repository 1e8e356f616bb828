"""Shared parts of prediction routes: the host, the body, the deadline and the engine's answer."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import Request
from torch import Tensor

from app.api.leaving import Gone, WhileThere
from app.datasets.decoding import CHILDREN as DECODERS
from app.datasets.decoding import Decoders
from app.db.isolation import parted
from app.serving.auth import caller_of
from app.serving.canary.assigning import Assignment
from app.serving.canary.comparing import Comparisons
from app.serving.engine import metrics
from app.serving.engine.capacity import Capacity, Overloaded, TooLate
from app.serving.engine.engine import Engine, Stopped
from app.serving.engine.side_threads import SideThreads
from app.serving.history import History
from app.serving.loader.registry import Registry
from app.serving.loader.snapshot import Snapshot
from app.serving.protocol.bodies import CHILDREN as READERS
from app.serving.protocol.bodies import Readers
from app.serving.protocol.tensors import MOST_CHARACTERS, BadRequest, TooManyImages
from app.settings import Settings
from pnc_core.images import Views

log = logging.getLogger(__name__)
WRITERS, CHANGES = 2, 8
"""Threads that write large answers, and threads that wait for changes of deployments."""


@dataclass(frozen=True)
class Host:
    """State of the serving application, for its routes."""

    settings: Settings
    registry: Registry
    engine: Engine
    history: History
    """Requests and latencies of the last hour."""
    comparisons: Comparisons
    """Compares the two sets of modules of deployments with a canary."""
    decoders: Decoders
    """Decodes images in child processes."""
    readers: Readers
    """Reads long JSON bodies in child processes."""
    bodies: Capacity
    """Limits the bytes of bodies in memory."""
    decoding: SideThreads
    reading: SideThreads
    writing: SideThreads
    """Threads for decoding images, reading bodies and writing answers."""
    changing: SideThreads
    """Threads that wait for changes of deployments. Loading a large network therefore blocks no check of keys."""
    asking: SideThreads
    """Threads for `/readyz`, which therefore never waits for predictions."""

    @classmethod
    def make(cls, settings: Settings, registry: Registry, engine: Engine) -> "Host":
        """Create the host with the limits of the settings."""
        share = workspace_share(settings)
        return cls(
            settings=settings,
            registry=registry,
            engine=engine,
            history=History(),
            comparisons=Comparisons(engine, registry.counts),
            decoders=Decoders(),
            readers=Readers(),
            bodies=Capacity(settings.waiting_bytes, share),
            decoding=SideThreads(DECODERS, share),
            reading=SideThreads(READERS, share),
            writing=SideThreads(WRITERS, share),
            changing=SideThreads(CHANGES, share),
            asking=SideThreads(2),
        )

    @classmethod
    def of(cls, request: Request) -> "Host":
        """The host of a request's application."""
        host: Host = request.app.state.host
        return host


def workspace_share(settings: Settings) -> float:
    """Largest share of one workspace in the limits; 1.0 without keys, since only one workspace is used then."""
    return settings.workspace_share if settings.require_keys else 1.0


@contextmanager
def held(request: Request) -> Iterator[None]:
    """Reserve memory for a request's body, also decompressed, for the duration of a block.

    Raises:
        Overloaded: too many bytes of bodies are in memory.
    """
    host, length = Host.of(request), length_of(request)
    most = host.settings.max_image_bytes
    packed = request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")
    try:
        with host.bodies.taken(caller_of(request).workspace, (most if length is None else length) + most * packed):
            yield
    except Overloaded:
        metrics.TURNED_AWAY.labels("bodies_full").inc()
        raise


def length_of(request: Request) -> int | None:
    """Content-Length of a request; None: absent or malformed."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


async def body_of(request: Request) -> bytearray:
    """Body of a request. The guard limits its size.

    Raises:
        ClientDisconnect: the client has disconnected before the end of the body.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
    return content


def deadline(request: Request) -> float:
    """Deadline, on the event loop's clock, of a request whose body has just arrived."""
    return asyncio.get_running_loop().time() + Host.of(request).settings.answer_seconds


async def logits(request: Request, assignment: Assignment, images: Tensor | Views, until: float) -> Tensor:
    """Logits, float32 (N, classes), of images. The same snapshot answers all images, even if a newer one is published.

    Args:
        request: The request. Its body must have been read.
        assignment: Snapshot and modules that answer.
        images: uint8 pixels, or float32 images preprocessed for the target, (N, C, H, W); or views of the images.
        until: Deadline on the event loop's clock.

    Raises:
        TooManyImages: the answer would have more numbers than allowed.
        Overloaded: too many requests or images are waiting.
        TooLate: the deadline has passed.
        NotFinite: a logit is inf or nan.
        Stopped: the inference thread has ended or is stuck.
        Gone: the client has disconnected.
    """
    host, choice = Host.of(request), assignment.choice
    snapshot = choice.snapshot
    _check_outputs(len(images), len(choice.classes), host.settings.request_outputs)
    outcome, begun = "failed", time.monotonic()
    left = until - asyncio.get_running_loop().time()
    with snapshot.used():
        try:
            async with WhileThere(request):
                answer = await host.engine.ask(choice.program, images, left, parted(snapshot.deployment))
            outcome = "answered"
        except (Overloaded, TooLate, Stopped):
            outcome = "turned_away"
            raise
        except Gone:
            outcome = "given_up"
            raise
        finally:
            metrics.REQUESTS.labels(snapshot.deployment, str(snapshot.generation), outcome).inc()
            host.history.note(snapshot.deployment, _since_arrival(host, until), answered=outcome == "answered")
            _log_outcome(request, snapshot, outcome, time.monotonic() - begun)
    host.comparisons.note(assignment, images, answer)
    return answer


def _since_arrival(host: Host, until: float) -> float:
    """Seconds since the body of a request with this deadline has arrived."""
    return asyncio.get_running_loop().time() - (until - host.settings.answer_seconds)


def _check_outputs(images: int, classes: int, most: int) -> None:
    if images * classes > most:
        fit = most // classes
        hint = f"send at most {fit} images at a time" if fit else "the operator can raise PNC_REQUEST_OUTPUTS"
        raise TooManyImages(
            f"expected at most {most} numbers in an answer, got {images} images of {classes} classes; {hint}"
        )


def _log_outcome(request: Request, snapshot: Snapshot, outcome: str, seconds: float) -> None:
    """Log one line for a request: an answered one at level debug, any other as a warning."""
    level = logging.DEBUG if outcome == "answered" else logging.WARNING
    if log.isEnabledFor(level):
        about = {
            "deployment": snapshot.deployment,
            "generation": snapshot.generation,
            "request_id": request.scope.get("state", {}).get("request_id"),
            "milliseconds": round(1000 * seconds, 1),
        }
        log.log(level, "prediction %s", outcome, extra=about)


def chosen_ids(text: str | None) -> tuple[str, ...] | None:
    """Ids of modules from a parameter, separated by commas. Empty text means the target alone; None: all modules.

    Raises:
        BadRequest: the text is too long.
    """
    if text is None:
        return None
    if len(text) > MOST_CHARACTERS:
        raise BadRequest(f"modules: expected at most {MOST_CHARACTERS} characters, got {len(text)}")
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
