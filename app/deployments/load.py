"""Request rate and latency of a deployment, computed from two samples of the serving process's metrics."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup
from prometheus_client.parser import text_string_to_metric_families

from app.web.html import section

FRESH_SECONDS = 1.0
"""For this time all pages share one answer of the metrics endpoint."""
MOST_BYTES = 4 * 1024**2
"""Longer answers of the metrics endpoint are ignored."""
_SUMS = ("pnc_queue_seconds_sum", "pnc_compute_seconds_sum")


@dataclass(frozen=True)
class MetricsSample:
    """The counters of a deployment at one moment."""

    at: float
    """Time of a monotonic clock, in seconds."""
    answered: float
    """Predictions of the deployment."""
    seconds: float
    """Time that requests waited and ran, of all deployments together."""
    batches: float
    """Batches of all deployments together."""


@dataclass(frozen=True)
class _Counted:
    """The counters of the serving process."""

    answered: Mapping[str, float]
    """Predictions by deployment."""
    seconds: float
    batches: float


@lru_cache(2)
def _counted(text: str) -> _Counted:
    """Parse the counters of all deployments; the cache makes all pages share one parse."""
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


class SharedMetrics:
    """The metrics of the serving process; all open pages share one request."""

    def __init__(self) -> None:
        self._text, self._at = "", float("-inf")
        self._asked: asyncio.Future[str] | None = None

    async def text(self, ask: Callable[[], Awaitable[tuple[int, bytes]]]) -> str:
        """The metrics as text, at most `FRESH_SECONDS` old; empty if they could not be read.

        Args:
            ask: Requests the metrics; returns status and body.
        """
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
        deployment: Name of the deployment, unique among all workspaces.
    """

    def __init__(self, deployment: str) -> None:
        self._deployment = deployment
        self._last: MetricsSample | None = None
        self._before: MetricsSample | None = None

    def read(self, text: str, at: float) -> None:
        """Add a sample.

        Args:
            text: The metrics in Prometheus' text format; empty: they could not be read.
            at: Time of the sample on a monotonic clock, in seconds.
        """
        if not text:
            self._before = self._last = None
            return
        counted = _counted(text)
        answered = counted.answered.get(self._deployment, 0.0)
        self._before, self._last = self._last, MetricsSample(at, answered, counted.seconds, counted.batches)

    def tiles(self) -> Markup:
        """Tiles that show predictions, request rate and latency."""
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
        hint = "Since the serving process started. Latency: mean time of a batch of any deployment, including waiting"
        return section("Load", Markup('<div class="tiles">{}</div>').format(drawn), hint)
