"""A mask that is learned together with the adapters, always exactly within its budget.

Every channel has a worth, which starts from its score. In every step the
channels of highest worth that fit the budget are open and all others shut; going
backwards, a gate passes its derivative on to the worth as if it were a
sigmoid of it (straight-through estimator, Bengio et al. 2013). So a shut channel
comes back when the loss misses it.

Own choice: the abstract only says that localization and insertion are learned
together. An exact projection in place of a penalty on the size leaves
no weight of the penalty to tune.
"""

import torch
from torch import Tensor, nn

from pnc_core.method.localize import Hold, Scores, importance, keep_most_important, ranks
from pnc_core.module.tail import Tail

REFRESH = 8
"""Steps between two choices of the open channels."""


class LearnedMask:
    """Worths of all channels of an opened tail, and the mask they make."""

    def __init__(
        self, tail: Tail, scores: Scores, keep: float, importance_bias: Scores | None = None, hold: Hold | None = None
    ) -> None:
        """`importance_bias` is added to the importances whenever channels are chosen. `hold` checks the other bounds of
        the module.
        """
        self._tail, self._keep, self._steps, self._importance_bias, self._hold = tail, keep, 0, importance_bias, hold
        self._importance = {name: nn.Parameter(value) for name, value in ranks(importance(tail, scores)).items()}
        self.open = self.kept()
        """int64 indices of the channels that are open now, by group."""

    def resume(self, steps: int, chosen: dict[str, Tensor]) -> None:
        """Go on after so many steps with these channels open; the worths have been restored already."""
        self._steps, self.open = steps, chosen

    def parameters(self) -> list[nn.Parameter]:
        """The worths, float32 (width,) of every group; about -1 to 1 at the start."""
        return list(self._importance.values())

    def apply(self) -> None:
        """Set the tail's masks for one step; every `REFRESH` steps the open channels are chosen anew."""
        if self._steps % REFRESH == 0:
            self.open = self.kept()
        self._steps += 1
        for name, gate in self._tail.gates.items():
            soft = torch.sigmoid(4 * self._importance[name]).to(gate.scale.device)
            hard = torch.zeros_like(soft).index_fill(0, self.open[name].to(soft.device), 1.0)
            gate.mask = hard + soft - soft.detach()

    def kept(self) -> dict[str, Tensor]:
        """int64 ascending indices of the channels that fit the budget, by group."""
        importances = {n: w.detach().cpu() for n, w in self._importance.items()}
        if self._importance_bias is not None:
            importances = {n: w + self._importance_bias[n] for n, w in importances.items()}
        return keep_most_important(self._tail, importances, self._keep, self._hold)
