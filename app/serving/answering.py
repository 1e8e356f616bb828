"""From a request to logits: which network it is for, and the way through the engine."""

from dataclasses import dataclass

from starlette.requests import Request
from torch import Tensor

from app.serving import metrics
from app.serving.engine import Engine, Overloaded, TooLate
from app.serving.registry import Registry
from app.serving.snapshot import Choice
from app.zoo.settings import Settings


@dataclass(frozen=True)
class Host:
    """What the serving app's routes work with."""

    settings: Settings
    registry: Registry
    engine: Engine

    @classmethod
    def of(cls, request: Request) -> "Host":
        """Of the app that a request came to."""
        host: Host = request.app.state.host
        return host


async def logits(host: Host, choice: Choice, images: Tensor) -> Tensor:
    """Answer for images; the snapshot is held until then, whatever is published meanwhile.

    Args:
        host: Whose engine answers.
        choice: What answers.
        images: uint8 pixels, or float32 that are preprocessed already, (N, C, H, W).

    Raises:
        Overloaded: too many wait.
        TooLate: it waited too long.
    """
    snapshot = choice.snapshot
    outcome = "failed"
    with snapshot.used():
        try:
            answer = await host.engine.ask(choice.program, images, host.settings.answer_seconds)
            outcome = "answered"
        except (Overloaded, TooLate):
            outcome = "turned_away"
            raise
        finally:
            metrics.REQUESTS.labels(snapshot.deployment, str(snapshot.generation), outcome).inc()
    return answer


def chosen_ids(text: str | None) -> tuple[str, ...] | None:
    """Ids of modules from a parameter: separated by commas; an empty text is the target alone, none: all."""
    if text is None:
        return None
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
