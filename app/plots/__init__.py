"""Pictures of results, drawn from plain numbers: no network, no torch, no server.

Every function takes records as `evidence.json` and the benchmarks hold them and returns
a `matplotlib.figure.Figure`; `save` writes one as PNG and SVG. pyplot, which keeps global
state and looks for a screen, is not imported. Pictures are drawn to be read at a
width of 400 pixels and without seeing colours: series differ in marker and line, too.
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
