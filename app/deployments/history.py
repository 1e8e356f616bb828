"""Requests and latencies of a deployment over the last hour, as a small chart."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.web.html import empty, section

WIDE, HIGH = 420, 232
"""Units of the picture; its text is readable at a width of 320 pixels."""
LEFT, RIGHT = 52, 8
TOPS, TALL = (18, 134), 72
"""Upper edge of both panels, requests above latencies, and their height."""
_HINT = "Of the serving process that answers this page, while it runs"
_LINES = (("p50", "s0", ""), ("p95", "s1", "5 4"))
"""Quantile, colour, and dashes that tell the lines apart without colours."""


@dataclass(frozen=True)
class Row:
    """The requests of one interval."""

    ago: int
    """Number of intervals since then; 0: the running one."""
    answered: int
    failed: int
    p50: float | None
    """Median latency in seconds; None: nothing was answered."""
    p95: float | None


@dataclass(frozen=True)
class Hour:
    """The last hour of a deployment."""

    seconds: int
    """Length of an interval."""
    intervals: int
    """Number of intervals."""
    rows: tuple[Row, ...]
    """Intervals with requests, oldest first."""

    @classmethod
    def read(cls, status: int, body: bytes) -> "Hour | None":
        """From an answer of the serving process; None: it has no history, because it is away or older."""
        if status != 200:
            return None
        try:
            found = json.loads(body)
            rows = tuple(Row(**row) for row in found["rows"])
            return cls(int(found["seconds"]), int(found["intervals"]), rows)
        except (ValueError, TypeError, KeyError):
            return None


def chart(hour: Hour | None) -> Markup:
    """A card with the requests a second and the latencies of the last hour."""
    if hour is None:
        return section("Last hour", empty("No history", "The serving process does not answer."), _HINT)
    if not hour.rows:
        return section("Last hour", empty("No requests", "No request came in the last hour."), _HINT)
    key = Markup(
        '<p class="key"><span><i class="bars-key"></i>requests a second</span>'
        '<span><i class="line-key s0"></i>median latency</span>'
        '<span><i class="line-key s1 dashed"></i>95 % are faster</span></p>'
    )
    figure = Markup('<figure class="plot">{}<figcaption>{}</figcaption></figure>').format(_picture(hour), key)
    return section("Last hour", figure, _HINT)


def _picture(hour: Hour) -> Markup:
    rates = [(row.answered + row.failed) / hour.seconds for row in hour.rows]
    latencies = [1000 * row.p95 for row in hour.rows if row.p95 is not None]
    most, slowest = max(rates), max(latencies, default=0.0)

    def across(ago: float) -> float:
        return WIDE - RIGHT - (WIDE - LEFT - RIGHT) * ago / hour.intervals

    width = max((WIDE - LEFT - RIGHT) / hour.intervals - 0.6, 1.0)
    bars = Markup("").join(
        Markup('<rect class="rate" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            across(row.ago + 1), TOPS[0] + TALL * (1 - rate / most), width, TALL * rate / most
        )
        for row, rate in zip(hour.rows, rates, strict=True)
    )
    lines = Markup("").join(
        _line(hour.rows, name, colour, dashes, across, slowest) for name, colour, dashes in _LINES if latencies
    )
    return Markup(
        '<svg class="trend" role="img" aria-label="{}" viewBox="0 0 {} {}">{}{}{}{}{}</svg>'
    ).format(
        _summary(hour, most), WIDE, HIGH,
        _axis(TOPS[0], "requests a second", _figure(most)),
        _axis(TOPS[1], "latency in ms", _figure(slowest)),
        bars, lines, _times(hour),
    )  # fmt: skip


def _line(
    rows: Sequence[Row], name: str, colour: str, dashes: str, across: Callable[[float], float], slowest: float
) -> Markup:
    """A line through the values of a quantile; an interval without answers interrupts it. Lone values are dots."""
    places: list[tuple[int, float, float]] = []
    for row in rows:
        value: float | None = getattr(row, name)
        if value is not None:
            places.append((row.ago, across(row.ago + 0.5), TOPS[1] + TALL * (1 - 1000 * value / slowest)))
    known = {ago for ago, _, _ in places}
    path = " ".join(f"{'L' if ago + 1 in known else 'M'}{x:.1f} {y:.1f}" for ago, x, y in places)
    dots = Markup("").join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(x, y)
        for ago, x, y in places
        if not {ago - 1, ago + 1} & known
    )
    return Markup('<g class="series {}"><path d="{}" stroke-dasharray="{}"/>{}</g>').format(colour, path, dashes, dots)


def _axis(top: float, name: str, most: str) -> Markup:
    floor = top + TALL
    return Markup(
        '<path class="axis" d="M{0} {1}V{2}H{3}"/><text x="{4}" y="{5}">{6}</text>'
        '<text x="{7}" y="{8}" text-anchor="end">{9}</text><text x="{7}" y="{2}" text-anchor="end">0</text>'
    ).format(LEFT, top, floor, WIDE - RIGHT, LEFT + 6, top - 5, name, LEFT - 6, top + 10, most)


def _times(hour: Hour) -> Markup:
    minutes = hour.seconds * hour.intervals // 60
    return Markup('<text x="{}" y="{}">{} min ago</text><text x="{}" y="{}" text-anchor="end">now</text>').format(
        LEFT, HIGH - 8, minutes, WIDE - RIGHT, HIGH - 8
    )


def _figure(number: float) -> str:
    """A number for an axis."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _summary(hour: Hour, most: float) -> str:
    """The chart in words."""
    answered, failed = (sum(getattr(row, name) for row in hour.rows) for name in ("answered", "failed"))
    newest = hour.rows[-1]
    latency = ""
    if newest.p50 is not None and newest.p95 is not None:
        latency = f"; newest latency {_figure(1000 * newest.p50)} ms (median), {_figure(1000 * newest.p95)} ms (95 %)"
    return f"Last hour: {answered:,} answers, {failed:,} failures, at most {_figure(most)} requests a second{latency}"
