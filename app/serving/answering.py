"""From a request to logits: which network it is for, and the way through the engine."""

from dataclasses import dataclass

from starlette.requests import Request
from torch import Tensor

from app.serving import metrics
from app.serving.engine import Engine, Overloaded, TooLate
from app.serving.registry import Registry
from app.serving.snapshot import Snapshot
from app.zoo.deployments import DesiredModule
from app.zoo.settings import Settings
from pnc_core.composed import Composed
from pnc_core.data import preprocess


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


@dataclass(frozen=True)
class Choice:
    """A snapshot, and those of its modules that shall answer."""

    snapshot: Snapshot
    network: Composed
    modules: tuple[DesiredModule, ...]

    @classmethod
    def make(cls, snapshot: Snapshot, ids: tuple[str, ...] | None) -> "Choice":
        """All modules, or those with these ids."""
        return cls(snapshot, *snapshot.chosen(ids))

    async def logits(self, host: Host, images: Tensor, *, pixels: bool = True) -> Tensor:
        """Answer for images; the snapshot is held until then, whatever is published meanwhile.

        Args:
            host: Whose engine answers.
            images: uint8 pixels, or float32 that are preprocessed already, (N, C, H, W).
            pixels: Which of both.

        Raises:
            Overloaded: too many wait.
            TooLate: it waited too long.
        """
        snapshot = self.snapshot
        outcome = "failed"
        with snapshot.used():
            try:
                x = preprocess(images, snapshot.spec) if pixels else images
                answer = await host.engine.ask(self.network, x, host.settings.answer_seconds)
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
