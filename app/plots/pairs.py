"""Grid of means for pairs of a row and a column, with margins over each row's baseline."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from app.plots.drawing import INK, PAPER, WIDTH, Record, new_figure, styled

ROW = 0.5
"""Height of a row in inches."""


@styled
def margin_grid(
    records: Sequence[Record], *, row: str, column: str, value: str, alone: str, row_label: str, column_label: str
) -> Figure:
    """Means of repeated measurements by row and column; the colour shows the margin over the row's baseline.

    Args:
        records: Measurements; at least one for each pair, including the pairs of each row with `alone`.
        row: Field with the name of the row.
        column: Field with the name of the column.
        value: Field of the measurement, a share of 0..1; drawn in percent.
        alone: Name of the baseline column, which is drawn first and in the colour of margin 0.
        row_label: Label of the vertical axis.
        column_label: Label of the horizontal axis.
    """
    rows = list(dict.fromkeys(str(r[row]) for r in records))
    columns = [alone, *(c for c in dict.fromkeys(str(r[column]) for r in records) if c != alone)]
    means = [[100 * fmean(r[value] for r in records if (r[row], r[column]) == (a, b)) for b in columns] for a in rows]
    margins = [[mean - line[0] for mean in line] for line in means]
    most = max(1.0, *(abs(m) for line in margins for m in line))
    figure = new_figure(0.9 + ROW * len(rows), WIDTH)
    axes = figure.subplots()
    image = axes.imshow(margins, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
    axes.axvline(0.5, color=PAPER, linewidth=3)
    for i, line in enumerate(means):
        for j, mean in enumerate(line):
            strong = abs(margins[i][j]) > 0.6 * most
            text = f"{mean:.1f}" if not j else f"{mean:.1f}\n({margins[i][j]:+.1f})".replace("-", "−")
            axes.text(j, i, text, ha="center", va="center", color=PAPER if strong else INK, fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(range(len(columns)), columns, fontsize=7)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylabel(row_label)
    axes.set_xlabel(column_label)
    figure.colorbar(image, ax=axes, pad=0.02, aspect=15).set_label(f"points above {alone}")
    return figure
