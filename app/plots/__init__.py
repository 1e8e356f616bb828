"""Plots of results, drawn from plain numbers without torch or a server.

Each function takes records of `evidence.json` or of a benchmark and returns a
`matplotlib.figure.Figure`; `save` writes a figure as PNG and SVG. pyplot is not imported, because it keeps
global state and needs a display. The plots are readable at a width of 400 pixels and without colours: series
also differ in marker and line style.
"""

from app.plots.bars import accuracy_bars
from app.plots.costs import cost_curve
from app.plots.drawing import save
from app.plots.masking import masking_curve
from app.plots.matrix import similarity_matrix
from app.plots.pairs import margin_grid
from app.plots.positions import position_curve

__all__ = [
    "accuracy_bars",
    "cost_curve",
    "margin_grid",
    "masking_curve",
    "position_curve",
    "save",
    "similarity_matrix",
]
