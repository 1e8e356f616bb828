"""Pictures as SVG: positions by size and score, bars, and the channels that a module kept.

Colours come from the style sheet, so that one picture is right in light and dark. What a
colour says, a shape or a word says, too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from app.models.layer_table import Mask
from app.web.html import count

WIDE, HIGH = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 16, 44
"""Room around the curve for its labels."""
CELLS = 96
"""Channels that one row of a mask shows; wider groups are gathered."""
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Mark:
    """A position that was tried."""

    name: str
    round: int
    score: float
    size: float
    key: str
    """Pairs of positions that are the same have the same key, and are joined by a line."""


def marks(trials: Iterable[Any]) -> list[Mark]:
    """Rows or events of trials as marks."""
    return [
        Mark(
            f"{t.target_position} → {t.source_position}",
            t.round,
            t.score,
            t.parameters or 0,
            f"{t.target_position}\n{t.source_position}",
        )
        for t in trials
    ]


def curve(tried: Sequence[Mark], *, ended: bool) -> Markup:
    """Size and score of the positions that were tried.

    Args:
        tried: Oldest first; at least one.
        ended: The best of the last round is the one that was chosen.
    """
    across = _scale([m.size for m in tried], LEFT, WIDE - RIGHT)
    up = _scale([m.score for m in tried], HIGH - BOTTOM, TOP + 8)
    best = max(tried, key=lambda m: (m.round, m.score))
    parts = [*_grid(tried, across, up), *_joints(tried, across, up)]
    parts += [_mark(m, across(m.size), up(m.score), chosen=ended and m is best) for m in tried]
    positions = {m.key for m in tried}
    text = f"{len(positions)} positions tried, scores from {min(m.score for m in tried):.3f} to {best.score:.3f}"
    picture = Markup(
        '<svg class="curve" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="xMidYMid meet">{}</svg>'
    ).format(text, WIDE, HIGH, Markup("").join(parts))
    key = Markup(
        '<p class="key"><span><i class="hollow"></i>screened</span><span><i class="square"></i>trained</span>{}</p>'
    ).format(Markup('<span><i class="star">★</i>chosen</span>') if ended else "")
    return Markup('<figure class="plot">{}<figcaption>{}</figcaption></figure>').format(picture, key)


def bars(rows: Sequence[tuple[str, float, str]], caption: str) -> Markup:
    """Bars with their names and values.

    Args:
        rows: Name, share of 0..1, and what is written behind it.
        caption: What they show.
    """
    lines = Markup("").join(
        Markup(
            '<div class="bar"><span class="name">{}</span><span class="track"><i style="width: {:.1f}%"></i></span>'
            '<span class="value">{}</span></div>'
        ).format(name, 100 * min(max(share, 0), 1), text)
        for name, share, text in rows
    )
    return Markup('<div class="bars" role="group" aria-label="{}">{}</div>').format(caption, lines)


def mask_strips(masks: Sequence[Mask]) -> Markup:
    """Every group of channels as a strip: kept ones are filled."""
    return Markup('<div class="masks">{}</div>').format(Markup("").join(_strip(mask) for mask in masks))


def _strip(mask: Mask) -> Markup:
    share = len(mask.kept) / mask.width if mask.width else 0.0
    text = f"{mask.group}: {len(mask.kept)} of {mask.width} channels kept"
    cells = min(mask.width, CELLS) or 1
    filled = [0] * cells
    for place in mask.kept:
        filled[place * cells // mask.width] += 1
    each = mask.width / cells
    drawn = Markup("").join(
        Markup('<rect x="{}" y="0" width="0.8" height="10" fill-opacity="{:.2f}"/>').format(i, n / each)
        for i, n in enumerate(filled)
        if n
    )
    picture = Markup(
        '<svg viewBox="0 0 {} 10" preserveAspectRatio="none" role="img" aria-label="{}"><title>{}</title>{}</svg>'
    ).format(cells, text, text, drawn)
    return Markup(
        '<div class="mask"><code class="name">{}</code>{}<span class="value">{} / {} · {}</span></div>'
    ).format(mask.group, picture, len(mask.kept), mask.width, f"{share:.0%}")


def _grid(tried: Sequence[Mark], across: Scale, up: Scale) -> list[Markup]:
    """Axes, with the ends of both named."""
    low, high = min(m.score for m in tried), max(m.score for m in tried)
    least, most = min(m.size for m in tried), max(m.size for m in tried)
    floor, end = HIGH - BOTTOM + 8, WIDE - RIGHT
    lines = [
        Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(LEFT - 8, TOP, floor, end),
        *(Markup('<path class="rule" d="M{} {:.1f}H{}"/>').format(LEFT - 8, up(score), end) for score in {low, high}),
    ]
    labels = [
        (LEFT - 14, up(high) + 4, "end", f"{high:.2f}"),
        *([(LEFT - 14, up(low) + 4, "end", f"{low:.2f}")] if up(low) - up(high) > 14 else []),
        (across(least), floor + 18, "middle" if least == most else "start", count(least)),
        *([(across(most), floor + 18, "end", count(most))] if least < most else []),
        ((LEFT + end) / 2, floor + 32, "middle", "numbers of the module"),
    ]
    return lines + [
        Markup('<text x="{:.0f}" y="{:.0f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)
        for x, y, anchor, text in labels
    ]


def _joints(tried: Sequence[Mark], across: Scale, up: Scale) -> list[Markup]:
    """Lines between the rounds of one position."""
    places: dict[str, list[str]] = {}
    for m in tried:
        places.setdefault(m.key, []).append(f"{across(m.size):.1f} {up(m.score):.1f}")
    return [Markup('<path class="joint" d="M{}"/>').format(" L".join(p)) for p in places.values() if len(p) > 1]


def _mark(mark: Mark, x: float, y: float, *, chosen: bool) -> Markup:
    kind = f"round {mark.round}" if mark.round else "screened"
    title = Markup("<title>{}</title>").format(f"{mark.name}: {mark.score:.3f}, {count(mark.size)} numbers, {kind}")
    if chosen:
        return Markup('<text class="chosen" x="{:.1f}" y="{:.1f}" text-anchor="middle">★{}</text>').format(
            x, y + 9, title
        )
    if mark.round:
        return Markup('<rect class="trained" x="{:.1f}" y="{:.1f}" width="9" height="9">{}</rect>').format(
            x - 4.5, y - 4.5, title
        )
    return Markup('<circle class="screened" cx="{:.1f}" cy="{:.1f}" r="4.5">{}</circle>').format(x, y, title)


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    """From values to pixels; when there is only one value, it lies in the middle."""
    low, high = min(values), max(values)
    if low == high:
        return lambda value: (start + end) / 2
    return lambda value: start + (end - start) * (value - low) / (high - low)
