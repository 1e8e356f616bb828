"""Matrices over held-out images: confusion before and after attaching, and similarity of explanations."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from app.web.html import section

CELL, LETTER, SPACE = 34, 6, 14
"""Size of a cell, width of a letter, and space around names, in units of the picture."""
PIXELS = 1.3
"""Largest number of pixels of a unit, so that small matrices are not drawn too large."""
MOST_NUMBERS = 16
"""Matrices with more columns have no numbers in their cells."""
MOST_LETTERS = 8
"""Longer names are cut to this number of letters."""
Matrix = Sequence[Sequence[float]]


def matrices(evidence: dict[str, Any]) -> Markup:
    """The matrices in a module's evidence, each in a section; empty if there are none."""
    parts = []
    if "confusion" in evidence:
        parts.append(_confusion(evidence["confusion"]))
    if "similarity" in evidence:
        parts.append(_similarity(evidence["similarity"]))
    return Markup("").join(parts)


def _confusion(found: dict[str, Any]) -> Markup:
    classes: list[str] = found["classes"]
    pictures = [
        matrix(f"{title}: {_correct(found[key])}", found[key], classes, classes, shares=True)
        for key, title in (("before", "The target alone"), ("after", "With the module"))
    ]
    note = "Rows: class of the image. Columns: predicted class, by a head that was not fitted on the image"
    return section("Confusion", Markup('<div class="matrices">{}</div>').format(Markup("").join(pictures)), note)


def _similarity(found: dict[str, Any]) -> Markup:
    pictures = [
        matrix(title, found[key], found["rows"], found["columns"])
        for key, title in (("module", "Module and source"), ("source", "Source and source"))
    ]
    note = "Cosines of local representations of images (rows) for a class (columns): 1 is equal, 0 is unrelated"
    return section(
        "Similarity of local representations",
        Markup('<div class="matrices">{}</div>').format(Markup("").join(pictures)),
        note,
    )


def matrix(title: str, values: Matrix, rows: Sequence[str], columns: Sequence[str], *, shares: bool = False) -> Markup:
    """A matrix as an SVG picture. Larger values are darker; cells whose row and column have one name have a frame.

    Args:
        title: Title above the picture.
        values: Matrix of shape (rows, columns): counts, or cosines from -1 to 1.
        rows: Names of the rows.
        columns: Names of the columns.
        shares: The values are counts; a cell is coloured by its share of the row's sum.
    """
    wide, high = CELL * len(columns), CELL * len(rows)
    parts = [Markup('<rect class="frame" x="0" y="0" width="{}" height="{}"/>').format(wide, high)]
    for i, row in enumerate(values):
        whole = max(sum(row), 1) if shares else 1.0
        parts += [
            _cell(
                value,
                value / whole,
                (CELL * j, CELL * i),
                f"{rows[i]} → {columns[j]}",
                numbers=len(columns) <= MOST_NUMBERS,
            )
            for j, value in enumerate(row)
        ]
    parts += _frames(rows, columns) + _names(rows, columns)
    beside, above = _room(rows), _room(columns)
    whole_wide = beside + wide + (above if _are_turned(columns) else 2)
    return Markup(
        '<figure class="matrix"><figcaption>{}</figcaption>'
        '<svg role="img" aria-label="{}" viewBox="{} {} {} {}" style="max-width: {:.0f}px">{}</svg></figure>'
    ).format(title, title, -beside, -above, whole_wide, above + high + 2, PIXELS * whole_wide, Markup("").join(parts))


def _cell(value: float, share: float, place: tuple[int, int], name: str, *, numbers: bool) -> Markup:
    x, y = place
    text = f"{value}" if isinstance(value, int) else f"{value:.2f}"
    drawn = Markup(
        '<rect class="cell{}" x="{}" y="{}" width="{}" height="{}" fill-opacity="{:.2f}"><title>{}: {}</title></rect>'
    ).format(" below" if share < 0 else "", x, y, CELL, CELL, min(abs(share), 1), name, text)
    if not numbers or not value:
        return drawn
    return drawn + Markup('<text{} x="{}" y="{}" text-anchor="middle">{}</text>').format(
        Markup(' class="strong"') if abs(share) > 0.6 else "", x + CELL / 2, y + CELL / 2 + 4, text
    )


def _frames(rows: Sequence[str], columns: Sequence[str]) -> list[Markup]:
    return [
        Markup('<rect class="right" x="{}" y="{}" width="{}" height="{}"/>').format(
            CELL * columns.index(name) + 1, CELL * i + 1, CELL - 2, CELL - 2
        )
        for i, name in enumerate(rows)
        if name in columns
    ]


def _names(rows: Sequence[str], columns: Sequence[str]) -> list[Markup]:
    text = Markup('<text class="name" x="{}" y="{}" text-anchor="{}"{}>{}</text>')
    beside = [text.format(-6, CELL * (i + 0.5) + 4, "end", "", _short(name)) for i, name in enumerate(rows)]
    above = []
    for j, name in enumerate(columns):
        x = CELL * (j + 0.5)
        turned = Markup(' transform="rotate(-45 {} -8)"').format(x) if _are_turned(columns) else ""
        above.append(text.format(x, -8, "start" if turned else "middle", turned, _short(name)))
    return beside + above


def _are_turned(names: Sequence[str]) -> bool:
    """Whether names are wider than a column, and must be rotated."""
    return max(map(len, names)) * LETTER > CELL - 4


def _room(names: Sequence[str]) -> int:
    return SPACE + LETTER * min(max(map(len, names)), MOST_LETTERS)


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def _correct(counts: Sequence[Sequence[int]]) -> str:
    """Number of correctly classified images, and of all images, in words."""
    return f"{sum(row[i] for i, row in enumerate(counts))} of {sum(map(sum, counts))} correct"
