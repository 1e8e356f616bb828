"""Pictures in HTML and SVG: the plot of positions, bars, and the channels that a module keeps.

The style sheet sets the colours, so one picture fits the light and the dark scheme. Shapes or words repeat the
meaning of each colour.
"""

from collections.abc import Sequence
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
