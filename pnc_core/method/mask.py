"""Choose the channels to keep, and learn this choice together with the adapters.

A channel c with score I_c costs `cost_c` copied numbers. Channels are taken in descending order of the importance

    w_c = I_c / cost_c

until the budget is used up: sum of the copied numbers <= keep x numbers of the uncut tail.

`LearnedMask` starts from the rank of w_c in [-1, 1] and trains it. The forward pass uses the hard mask, the backward
pass uses the derivative of a sigmoid (straight-through estimator, Bengio et al. 2013):

    forward: m_c = 1 if c is among the chosen channels, else 0
    backward: dm_c / dw_c = d sigma(4 w_c) / dw_c

So a removed channel is chosen again once the loss raises its importance enough. Every mask keeps the budget exactly.

Own choice: the abstract only says that localization and insertion are learned together. An exact projection needs no
penalty on the size, so there is no penalty weight to tune.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pnc_core.method.localize import Scores
from pnc_core.module.tail import Tail

WithinBounds = Callable[[dict[str, int]], bool]
"""Takes the number of kept channels by group; returns whether the module keeps `max_size` and `max_macs`."""
REFRESH = 8
"""Training steps after which the channels are chosen again."""


class LearnedMask:
    """Trainable importances of all channels of an opened tail, and the mask that follows from them."""

    def __init__(
        self,
        tail: Tail,
        scores: Scores,
        keep: float,
        importance_bias: Scores | None = None,
        within_bounds: WithinBounds | None = None,
    ) -> None:
        """Start from the ranks of the scored channels.

        Args:
            tail: Opened tail.
            scores: As `pnc_core.method.localize.score_channels` returns them.
            keep: Share of the tail's numbers that may stay, 0..1.
            importance_bias: Added to the importances whenever channels are chosen; a watermark needs it.
            within_bounds: Checks the other bounds of the module.
        """
        self._tail, self._keep, self._steps = tail, keep, 0
        self._importance_bias, self._within_bounds = importance_bias, within_bounds
        self._importance = {name: nn.Parameter(value) for name, value in ranks(importance(tail, scores)).items()}
        self.open = self.kept()
        """int64 indices of the channels that the current mask lets through, by group."""

    def resume(self, steps: int, chosen: dict[str, Tensor]) -> None:
        """Continue from a checkpoint; the caller has restored the importances already.

        Args:
            steps: Training steps done so far.
            chosen: int64 indices of the channels that the mask let through, by group.
        """
        self._steps, self.open = steps, chosen

    def parameters(self) -> list[nn.Parameter]:
        """The importances, float32 (width,) of every group; at the start they lie in [-1, 1]."""
        return list(self._importance.values())

    def apply(self) -> None:
        """Set the tail's masks for one training step; every `REFRESH` steps the channels are chosen again."""
        if self._steps % REFRESH == 0:
            self.open = self.kept()
        self._steps += 1
        for name, gate in self._tail.gates.items():
            soft = torch.sigmoid(4 * self._importance[name]).to(gate.scale.device)
            hard = torch.zeros_like(soft).index_fill(0, self.open[name].to(soft.device), 1.0)
            gate.mask = hard + soft - soft.detach()

    def kept(self) -> dict[str, Tensor]:
        """int64 ascending indices of the channels to keep, by group."""
        importances = {n: w.detach().cpu() for n, w in self._importance.items()}
        if self._importance_bias is not None:
            importances = {n: w + self._importance_bias[n] for n, w in importances.items()}
        return keep_most_important(self._tail, importances, self._keep, self._within_bounds)


def choose_channels(
    tail: Tail,
    scores: Scores,
    keep: float,
    importance_bias: Scores | None = None,
    within_bounds: WithinBounds | None = None,
) -> dict[str, Tensor]:
    """Take channels in descending order of w_c = I_c / cost_c while the budget allows: a greedy knapsack.

    Args:
        tail: Opened tail.
        scores: As `pnc_core.method.localize.score_channels` returns them.
        keep: Share of the tail's numbers that may stay, 0..1.
        importance_bias: Added to the rank of w_c in [-1, 1]; a watermark needs it.
        within_bounds: Checks the other bounds of the module.

    Returns:
        int64 ascending indices of the channels to keep, by group.
    """
    if importance_bias is None:
        return keep_most_important(tail, importance(tail, scores), keep, within_bounds)
    return keep_most_important(
        tail, {n: rank + importance_bias[n] for n, rank in ranks(importance(tail, scores)).items()}, keep, within_bounds
    )


def ranks(importances: Scores) -> Scores:
    """Replace importances by their ranks over all groups, evenly spaced in [-1, 1].

    Scores span many orders of magnitude. One learning rate and one bias can only serve values of one scale.
    """
    joined = torch.cat(list(importances.values()))
    placed = torch.linspace(-1, 1, len(joined))[joined.argsort(stable=True).argsort()]
    return dict(zip(importances, placed.split([len(w) for w in importances.values()]), strict=True))


def importance(tail: Tail, scores: Scores) -> Scores:
    """w_c = I_c / cost_c, float32 (width,) by group.

    cost_c is the number of copied numbers that the uncut tail loses when channel c is removed.
    """
    full = {g.name: g.width for g in tail.groups}
    whole = tail.count(full)
    costs = {g.name: whole - tail.count({**full, g.name: g.width - 1}) for g in tail.groups}
    return {name: score / (costs[name] or 1) for name, score in scores.items()}


def keep_most_important(
    tail: Tail, importances: Scores, keep: float, within_bounds: WithinBounds | None = None
) -> dict[str, Tensor]:
    """The longest prefix of channels, in descending order of importance, whose exact cost fits the budget.

    The most important channel of every group always stays, so every group keeps at least one channel. A very small
    budget is exceeded by these channels.

    Args:
        tail: Opened tail.
        importances: One number per channel, by group; only their order counts.
        keep: Share of the tail's numbers that may stay, 0..1.
        within_bounds: Checks the other bounds of the module.

    Returns:
        int64 ascending indices of the channels to keep, by group.
    """
    budget = keep * tail.parameter_count

    def fits(sizes: dict[str, int]) -> bool:
        return tail.count(sizes) <= budget and (within_bounds is None or within_bounds(sizes))

    values, owners, channels = [], [], []
    for number, group in enumerate(tail.groups):
        value = importances[group.name].double().clone()
        value[value.argmax()] = torch.inf
        values.append(value)
        owners.append(torch.full((group.width,), number))
        channels.append(torch.arange(group.width))
    if not values:
        return {}
    order = torch.cat(values).argsort(descending=True, stable=True)
    owner, channel = torch.cat(owners)[order], torch.cat(channels)[order]
    count = _largest_prefix(tail, owner, fits)
    return {g.name: channel[:count][owner[:count] == number].sort().values for number, g in enumerate(tail.groups)}


def _largest_prefix(tail: Tail, owner: Tensor, fits: WithinBounds) -> int:
    """Length of the longest prefix of channels that fits, found by bisection; `owner` is each channel's group."""
    low, high = len(tail.groups), len(owner)
    while low < high:
        middle = (low + high + 1) // 2
        counts = torch.bincount(owner[:middle], minlength=len(tail.groups)).tolist()
        sizes = {g.name: n for g, n in zip(tail.groups, counts, strict=True)}
        low, high = (middle, high) if fits(sizes) else (low, middle - 1)
    return low
