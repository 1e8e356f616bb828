"""From a request to logits: which network it is for, its body, and the way through the engine."""

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
from app.serving.engine import metrics
from app.serving.engine.capacity import Overloaded, Room, TooLate
from app.serving.engine.engine import Engine, Stopped
from app.serving.engine.side_threads import Aside
from app.serving.loader.registry import Registry
from app.serving.loader.snapshot import Choice, Snapshot
from app.serving.protocol.bodies import CHILDREN as READERS
from app.serving.protocol.bodies import Readers
from app.serving.protocol.tensors import MOST_CHARACTERS, BadRequest, TooManyImages
from app.settings import Settings
from pnc_core.images import Views

log = logging.getLogger(__name__)
WRITERS, CHANGES = 2, 8
"""Large answers that are written, and changes of what is served that are waited for, at once."""


@dataclass(frozen=True)
class Host:
    """What the serving app's routes work with."""

    settings: Settings
    registry: Registry
    engine: Engine
    decoders: Decoders
    """Where strangers' images are decoded."""
    readers: Readers
    """Where long bodies are read."""
    bodies: Room
    """How many bytes of bodies are held at once."""
    decoding: Aside
    reading: Aside
    writing: Aside
    """Threads beside the event loop, for each kind of work its own."""
    changing: Aside
    """Threads that bring a deployment to what is wanted: something large that loads keeps no key from being checked."""
    asking: Aside
    """Threads for `/readyz`: no request keeps it waiting."""

    @classmethod
    def make(cls, settings: Settings, registry: Registry, engine: Engine) -> "Host":
        """With what the settings allow."""
        share = workspace_share(settings)
        return cls(
            settings=settings,
            registry=registry,
            engine=engine,
            decoders=Decoders(),
            readers=Readers(),
            bodies=Room(settings.waiting_bytes, share),
            decoding=Aside(DECODERS, share),
            reading=Aside(READERS, share),
            writing=Aside(WRITERS, share),
            changing=Aside(CHANGES, share),
            asking=Aside(2),
        )

    @classmethod
    def of(cls, request: Request) -> "Host":
        """Of the app that a request came to."""
        host: Host = request.app.state.host
        return host


def workspace_share(settings: Settings) -> float:
    """How much of what may wait one workspace may have; without keys there is one alone."""
    return settings.workspace_share if settings.require_keys else 1.0


@contextmanager
def held(request: Request) -> Iterator[None]:
    """Room for a request's body, inflated, for the length of a block.

    Raises:
        Overloaded: the bodies that are held leave none.
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
    """How long a request's body says it is."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


async def body_of(request: Request) -> bytearray:
    """A request's body, which the guard has bounded.

    Raises:
        ClientDisconnect: the client has gone before its end.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
    return content


def deadline(request: Request) -> float:
    """When the answer of a request whose body has just come is of no use any more, on the event loop's clock."""
    return asyncio.get_running_loop().time() + Host.of(request).settings.answer_seconds


async def logits(request: Request, choice: Choice, images: Tensor | Views, until: float) -> Tensor:
    """Answer for images; the snapshot is held until then, whatever is published meanwhile.

    Args:
        request: That asks; its body has been read.
        choice: What answers.
        images: uint8 images, or float32 images that are preprocessed for the target.
        until: When the answer is of no use any more, on the event loop's clock.

    Raises:
        TooManyImages: more numbers would come of it than one request may have.
        Overloaded: too many wait.
        TooLate: it took too long.
        NotFinite: the network gave inf or nan.
        Stopped: networks are not run any more.
        Gone: the client does not wait any more.
    """
    host, snapshot = Host.of(request), choice.snapshot
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
            _note(request, snapshot, outcome, time.monotonic() - begun)
    return answer


def _check_outputs(images: int, classes: int, most: int) -> None:
    if images * classes > most:
        fit = most // classes
        hint = f"send at most {fit} images at a time" if fit else "the operator can raise PNC_REQUEST_OUTPUTS"
        raise TooManyImages(
            f"expected at most {most} numbers in an answer, got {images} images of {classes} classes; {hint}"
        )


def _note(request: Request, snapshot: Snapshot, outcome: str, seconds: float) -> None:
    """One line a request: at debug level what was answered, as a warning what was not."""
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
    """Ids of modules from a parameter: separated by commas; an empty text is the target alone, none: all.

    Raises:
        BadRequest: the text is too long to be a list of modules.
    """
    if text is None:
        return None
    if len(text) > MOST_CHARACTERS:
        raise BadRequest(f"modules: expected at most {MOST_CHARACTERS} characters, got {len(text)}")
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
