"""Pictures as SVG: positions by size and score, bars, and the channels that a module kept.

Colours come from the style sheet, so that one picture is right in light and dark. What a
colour says, a shape or a word says, too.
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
