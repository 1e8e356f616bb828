"""How busy a deployment is, from two readings of the serving process's metrics."""

from dataclasses import dataclass

from markupsafe import Markup
from prometheus_client.parser import text_string_to_metric_families

from app.web.words import section

_SECONDS = ("pnc_queue_seconds", "pnc_compute_seconds")


@dataclass(frozen=True)
class Reading:
    """The counters at one moment."""

    at: float
    answered: float
    """Predictions of the deployment."""
    seconds: float
    """Waiting and running, of all deployments together."""
    batches: float


class Load:
    """Request rate and latency of one deployment.

    Args:
        deployment: Its name.
    """

    def __init__(self, deployment: str) -> None:
        self._deployment = deployment
        self._last: Reading | None = None
        self._before: Reading | None = None

    def read(self, text: str, at: float) -> None:
        """Take a reading.

        Args:
            text: Prometheus' own form; empty: there is none.
            at: When, in seconds of a clock that only goes forward.
        """
        if not text:
            self._before = self._last = None
            return
        answered = seconds = batches = 0.0
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "pnc_requests_total" and sample.labels.get("deployment") == self._deployment:
                    answered += sample.value
                elif sample.name in [f"{name}_sum" for name in _SECONDS]:
                    seconds += sample.value
                elif sample.name == "pnc_compute_seconds_count":
                    batches += sample.value
        self._before, self._last = self._last, Reading(at, answered, seconds, batches)

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
