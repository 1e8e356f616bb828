"""Requests and latencies of each deployment over the last hour, in memory.

Each deployment has a ring of intervals. An interval counts its requests and keeps its latencies as a histogram with
logarithmic bins, so that its size does not depend on the number of requests.
"""

import math
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

INTERVAL_SECONDS = 30
INTERVALS = 120
"""Intervals of a ring, which cover an hour."""
MOST_DEPLOYMENTS = 1000
"""Most rings; beyond that the deployment that was asked longest ago is forgotten."""
BINS_PER_DOUBLING = 8
"""A quantile is exact to half a bin, which is 4.4 %."""
_LEAST, _MOST = 1e-5, 1000.0
"""Latencies in seconds beyond which all fall into one bin."""


@dataclass
class Interval:
    """The requests of one interval."""

    number: int
    """Start of the interval on the monotonic clock, in intervals."""
    answered: int = 0
    failed: int = 0
    """Requests without an answer: turned away, failed, or given up."""
    bins: Counter[int] = field(default_factory=Counter)
    """Answered requests by bin of their latency."""

    def quantile(self, share: float) -> float | None:
        """The latency in seconds below which this share of the answers is; None: there are none."""
        left = math.ceil(share * self.answered)
        for bin_, count in sorted(self.bins.items()):
            left -= count
            if left <= 0:
                return float(_LEAST * 2 ** ((bin_ + 0.5) / BINS_PER_DOUBLING))
        return None


class History:
    """The rings of all deployments. Use it on one event loop."""

    def __init__(self) -> None:
        self._rings: OrderedDict[str, deque[Interval]] = OrderedDict()

    def note(self, deployment: str, seconds: float, *, answered: bool) -> None:
        """Add a request.

        Args:
            deployment: Name of the deployment, unique among all workspaces.
            seconds: Time from the arrival of the body to the answer.
            answered: Whether the request was answered.
        """
        ring = self._rings.setdefault(deployment, deque(maxlen=INTERVALS))
        self._rings.move_to_end(deployment)
        if len(self._rings) > MOST_DEPLOYMENTS:
            self._rings.popitem(last=False)
        now = _now()
        if not ring or ring[-1].number != now:
            ring.append(Interval(now))
        interval = ring[-1]
        if not answered:
            interval.failed += 1
            return
        interval.answered += 1
        bounded = min(max(seconds, _LEAST), _MOST)
        interval.bins[int(BINS_PER_DOUBLING * math.log2(bounded / _LEAST))] += 1

    def read(self, deployment: str) -> dict[str, Any]:
        """The intervals of the last hour that had requests, oldest first, as JSON."""
        now = _now()
        ring = [one for one in self._rings.get(deployment, ()) if now - one.number < INTERVALS]
        rows = [
            {
                "ago": now - one.number,
                "answered": one.answered,
                "failed": one.failed,
                "p50": one.quantile(0.5),
                "p95": one.quantile(0.95),
            }
            for one in ring
        ]
        return {"seconds": INTERVAL_SECONDS, "intervals": INTERVALS, "rows": rows}


def _now() -> int:
    return int(time.monotonic() // INTERVAL_SECONDS)
