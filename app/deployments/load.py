"""How busy a deployment is, from two readings of the serving process's metrics."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup
from prometheus_client.parser import text_string_to_metric_families

from app.web.html import section

FRESH_SECONDS = 1.0
"""How long numbers that one page asked for do for all others."""
MOST_BYTES = 4 * 1024**2
"""Longer answers are not read."""
_SUMS = ("pnc_queue_seconds_sum", "pnc_compute_seconds_sum")


@dataclass(frozen=True)
class MetricsSample:
    """The counters at one moment."""

    at: float
    answered: float
    """Predictions of the deployment."""
    seconds: float
    """Waiting and running, of all deployments together."""
    batches: float


@dataclass(frozen=True)
class _Counted:
    """What the serving process has counted so far."""

    answered: Mapping[str, float]
    """Predictions by deployment."""
    seconds: float
    batches: float


@lru_cache(2)
def _counted(text: str) -> _Counted:
    """The counters of all deployments; read once for all pages that show one of them."""
    answered: dict[str, float] = {}
    seconds = batches = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "pnc_requests_total":
                name = sample.labels.get("deployment", "")
                answered[name] = answered.get(name, 0.0) + sample.value
            elif sample.name in _SUMS:
                seconds += sample.value
            elif sample.name == "pnc_compute_seconds_count":
                batches += sample.value
    return _Counted(answered, seconds, batches)


class Numbers:
    """The serving process's numbers, which all open pages ask for at once."""

    def __init__(self) -> None:
        self._text, self._at = "", float("-inf")
        self._asked: asyncio.Future[str] | None = None

    async def text(self, ask: Callable[[], Awaitable[tuple[int, bytes]]]) -> str:
        """What `ask` answered a moment ago, or answers now; empty if that is no good answer."""
        if time.monotonic() - self._at < FRESH_SECONDS:
            return self._text
        loop = asyncio.get_running_loop()
        if self._asked is None or self._asked.done() or self._asked.get_loop() is not loop:
            self._asked = asyncio.ensure_future(self._ask(ask))
        return await asyncio.shield(self._asked)

    async def _ask(self, ask: Callable[[], Awaitable[tuple[int, bytes]]]) -> str:
        status, body = await ask()
        self._text = body.decode(errors="replace") if status == 200 and len(body) <= MOST_BYTES else ""
        self._at = time.monotonic()
        return self._text


class Load:
    """Request rate and latency of one deployment.

    Args:
        deployment: Its name.
    """

    def __init__(self, deployment: str) -> None:
        self._deployment = deployment
        self._last: MetricsSample | None = None
        self._before: MetricsSample | None = None

    def read(self, text: str, at: float) -> None:
        """Take a reading.

        Args:
            text: Prometheus' own form; empty: there is none.
            at: When, in seconds of a clock that only goes forward.
        """
        if not text:
            self._before = self._last = None
            return
        counted = _counted(text)
        answered = counted.answered.get(self._deployment, 0.0)
        self._before, self._last = self._last, MetricsSample(at, answered, counted.seconds, counted.batches)

    def tiles(self) -> Markup:
        """The numbers for people."""
        last, before = self._last, self._before
        rate = latency = "—"
        if last is not None and before is not None and last.at > before.at:
            rate = f"{max(last.answered - before.answered, 0) / (last.at - before.at):.1f}"
        if last is not None and last.batches:
            latency = f"{1000 * last.seconds / last.batches:.1f} ms"
        tiles = (
            (f"{last.answered:,.0f}" if last is not None else "—", "predictions"),
            (rate, "a second"),
            (latency, "latency"),
        )
        drawn = Markup("").join(
            Markup('<div class="tile"><b>{}</b><span>{}</span></div>').format(value, name) for value, name in tiles
        )
        hint = "Since the serving process began; latency of a batch, waiting included, over all deployments"
        return section("Load", Markup('<div class="tiles">{}</div>').format(drawn), hint)
