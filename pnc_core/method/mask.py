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

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pnc_core.method.localize import Scores
from pnc_core.module.tail import Tail

Hold = Callable[[dict[str, int]], bool]
"""Given how many channels are left of each group: is the module within its other bounds?"""
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


def choose_channels(
    tail: Tail, scores: Scores, keep: float, importance_bias: Scores | None = None, hold: Hold | None = None
) -> dict[str, Tensor]:
    """The channels worth most a copied number, as many as the budget allows: a greedy knapsack.

    Args:
        tail: Opened tail.
        scores: As `score_channels` gives them.
        keep: Share of the tail's numbers that may stay, 0..1.
        importance_bias: Added to every channel's rank, as a mark does it.
        hold: What else a module must keep.

    Returns:
        int64 ascending indices of the channels to keep, by group.
    """
    if importance_bias is None:
        return keep_most_important(tail, importance(tail, scores), keep, hold)
    return keep_most_important(
        tail, {n: rank + importance_bias[n] for n, rank in ranks(importance(tail, scores)).items()}, keep, hold
    )


def ranks(importances: Scores) -> Scores:
    """Ranks over all groups in -1..1: scores span many orders of magnitude, steps must not."""
    joined = torch.cat(list(importances.values()))
    placed = torch.linspace(-1, 1, len(joined))[joined.argsort(stable=True).argsort()]
    return dict(zip(importances, placed.split([len(w) for w in importances.values()]), strict=True))


def importance(tail: Tail, scores: Scores) -> Scores:
    """Score over cost, float32 (width,) by group; the cost is how many copied numbers a channel brings along."""
    full = {g.name: g.width for g in tail.groups}
    whole = tail.count(full)
    costs = {g.name: whole - tail.count({**full, g.name: g.width - 1}) for g in tail.groups}
    return {name: score / (costs[name] or 1) for name, score in scores.items()}


def keep_most_important(tail: Tail, importances: Scores, keep: float, hold: Hold | None = None) -> dict[str, Tensor]:
    """The channels of highest worth whose exact cost fits the budget.

    The best channel of every group always stays, so that no path is cut, even where
    that alone is over a tiny budget.

    Args:
        tail: Opened tail.
        importances: One number a channel, by group; only their order counts.
        keep: Share of the tail's numbers that may stay, 0..1.
        hold: What else a module must keep.

    Returns:
        int64 ascending indices of the channels to keep, by group.
    """
    budget = keep * tail.parameter_count

    def fits(sizes: dict[str, int]) -> bool:
        return tail.count(sizes) <= budget and (hold is None or hold(sizes))

    values, owners, channels = [], [], []
    for number, group in enumerate(tail.groups):
        value = importances[group.name].double().clone()
        value[value.argmax()] = torch.inf
        values.append(value)
        owners.append(torch.full((group.width,), number))
        channels.append(torch.arange(group.width))
    order = torch.cat(values).argsort(descending=True, stable=True)
    owner, channel = torch.cat(owners)[order], torch.cat(channels)[order]
    count = _largest_prefix(tail, owner, fits)
    return {g.name: channel[:count][owner[:count] == number].sort().values for number, g in enumerate(tail.groups)}


def _largest_prefix(tail: Tail, owner: Tensor, fits: Hold) -> int:
    """Bisect for the most channels, in order of worth, whose exact cost fits the budget."""
    low, high = len(tail.groups), len(owner)
    while low < high:
        middle = (low + high + 1) // 2
        counts = torch.bincount(owner[:middle], minlength=len(tail.groups)).tolist()
        sizes = {g.name: n for g, n in zip(tail.groups, counts, strict=True)}
        low, high = (middle, high) if fits(sizes) else (low, middle - 1)
    return low
