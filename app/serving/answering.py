"""From a request to logits: which network it is for, and the way through the engine."""

import logging
import time
from dataclasses import dataclass

from starlette.requests import Request
from torch import Tensor

from app.serving import metrics
from app.serving.engine import Engine, Overloaded, TooLate
from app.serving.registry import Registry
from app.serving.snapshot import Choice, Snapshot
from app.zoo.decoding import Decoders
from app.zoo.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Host:
    """What the serving app's routes work with."""

    settings: Settings
    registry: Registry
    engine: Engine
    decoders: Decoders
    """Where strangers' images are decoded."""

    @classmethod
    def of(cls, request: Request) -> "Host":
        """Of the app that a request came to."""
        host: Host = request.app.state.host
        return host


async def logits(request: Request, choice: Choice, images: Tensor) -> Tensor:
    """Answer for images; the snapshot is held until then, whatever is published meanwhile.

    Args:
        request: That asks.
        choice: What answers.
        images: uint8 pixels, or float32 that are preprocessed already, (N, C, H, W).

    Raises:
        Overloaded: too many wait.
        TooLate: it waited too long.
    """
    host, snapshot = Host.of(request), choice.snapshot
    outcome, begun = "failed", time.monotonic()
    with snapshot.used():
        try:
            answer = await host.engine.ask(choice.program, images, host.settings.answer_seconds)
            outcome = "answered"
        except (Overloaded, TooLate):
            outcome = "turned_away"
            raise
        finally:
            metrics.REQUESTS.labels(snapshot.deployment, str(snapshot.generation), outcome).inc()
            _note(request, snapshot, outcome, time.monotonic() - begun)
    return answer


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
    """Ids of modules from a parameter: separated by commas; an empty text is the target alone, none: all."""
    if text is None:
        return None
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
