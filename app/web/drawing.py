"""Pictures in HTML and SVG: the plot of positions, bars, and the channels that a module keeps.

The style sheet sets the colours, so one picture fits the light and the dark scheme. Shapes or words repeat the
meaning of each colour.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from app.models.layer_table import Mask
from pnc_client import pictures

CELLS = 96
"""Cells of a mask's strip; a group of more channels puts several channels into one cell."""


def position_plot(trials: Sequence[Any], *, ended: bool) -> Markup:
    """Score over module size of every trial, with a legend.

    Args:
        trials: Rows of trials, oldest first; at least one.
        ended: The job has succeeded, so the best trial of the last round is its chosen position.
    """
    picture = Markup(pictures.position_plot(trials, mark_best=ended))  # noqa: S704 - escaped where it is drawn
    legend = Markup(
        '<p class="key"><span><i class="hollow"></i>screened</span><span><i class="square"></i>trained</span>{}</p>'
    ).format(Markup('<span><i class="star">★</i>chosen</span>') if ended else "")
    return Markup('<figure class="plot">{}<figcaption>{}</figcaption></figure>').format(picture, legend)


WIDE, HIGH, MARGIN = 640, 300, 46
"""Units of the picture of several curves."""
_DASHES = ("", "7 4", "2 4", "10 3 2 3", "1 3", "12 5")
"""Dashes of the curves: colours alone would not do for everybody."""


def overlay(curves: Mapping[str, Sequence[Any]]) -> Markup:
    """For each job the best score of a module with at most so many parameters, over each other.

    Args:
        curves: Rows of trials by the job's letter; at least one row each.
    """
    points = {name: _front(trials) for name, trials in curves.items()}
    every = [point for found in points.values() for point in found]
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / ((right - left) or 1)
        up = (y - low) / ((high - low) or 1)
        return MARGIN + across * (WIDE - 2 * MARGIN), HIGH - MARGIN - up * (HIGH - 2 * MARGIN)

    lines = Markup("").join(
        _curve(n, name, [place(*p) for p in found]) for n, (name, found) in enumerate(points.items())
    )
    ticks = Markup(
        '<text x="{0}" y="{1}" text-anchor="start">{2}</text><text x="{3}" y="{1}" text-anchor="end">{4}</text>'
        '<text x="4" y="{5}">{6:.3f}</text><text x="4" y="{7}">{8:.3f}</text>'
    ).format(MARGIN, HIGH - 12, thousands(left), WIDE - MARGIN, thousands(right), HIGH - MARGIN, low, MARGIN, high)
    return Markup(
        '<figure class="plot"><svg class="curve over" viewBox="0 0 {} {}" role="img" '
        'aria-label="Best score by size of {}">{}{}</svg></figure>'
    ).format(WIDE, HIGH, ", ".join(points), ticks, lines)


def thousands(number: float) -> str:
    """A number of parameters for an axis."""
    return f"{number / 1000:,.0f} k" if number >= 1000 else f"{number:.0f}"


def _front(trials: Sequence[Any]) -> list[tuple[float, float]]:
    """Size and score of the trials that no smaller one equals, smallest first."""
    best, found = float("-inf"), list[tuple[float, float]]()
    for trial in sorted(trials, key=lambda one: (one.parameters, -one.score)):
        if trial.score > best:
            best = trial.score
            found.append((float(trial.parameters), best))
    return found


def _curve(number: int, name: str, places: Sequence[tuple[float, float]]) -> Markup:
    path = " ".join(f"{'L' if n else 'M'}{x:.1f} {y:.1f}" for n, (x, y) in enumerate(places))
    x, y = places[-1]
    marks = Markup("").join(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4"/>').format(*place) for place in places)
    return Markup(
        '<g class="series s{}"><path d="{}" stroke-dasharray="{}"/>{}<text x="{:.1f}" y="{:.1f}">{}</text></g>'
    ).format(number, path, _DASHES[number % len(_DASHES)], marks, x + 8, y - 8 - 2 * number, name)


def bars(rows: Sequence[tuple[str, float, str]], caption: str) -> Markup:
    """Horizontal bars with names and values.

    Args:
        rows: Name, length as a share of 0..1, and text of the value.
        caption: Description for screen readers.
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
    """One strip for each group of channels; kept channels are filled."""
    return Markup('<div class="masks">{}</div>').format(Markup("").join(_strip(mask) for mask in masks))


def _strip(mask: Mask) -> Markup:
    share = len(mask.kept) / mask.width if mask.width else 0.0
    text = f"{mask.group}: {len(mask.kept)} of {mask.width} channels kept"
    cells = min(mask.width, CELLS) or 1
    counts = [0] * cells
    for place in mask.kept:
        counts[place * cells // mask.width] += 1
    channels_per_cell = mask.width / cells
    rects = Markup("").join(
        Markup('<rect x="{}" y="0" width="0.8" height="10" fill-opacity="{:.2f}"/>').format(i, n / channels_per_cell)
        for i, n in enumerate(counts)
        if n
    )
    picture = Markup(
        '<svg viewBox="0 0 {} 10" preserveAspectRatio="none" role="img" aria-label="{}"><title>{}</title>{}</svg>'
    ).format(cells, text, text, rects)
    return Markup(
        '<div class="mask"><code class="name">{}</code>{}<span class="value">{} / {} · {}</span></div>'
    ).format(mask.group, picture, len(mask.kept), mask.width, f"{share:.0%}")
