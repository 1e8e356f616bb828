"""Localization: which channels of the source carry the cloned classes.

Scores are taken *through the stitched input* A(phi), so that what is kept
depends on where and how the module is inserted (the paper's abstract: localization
and insertion are intertwined). The budget is exact, in numbers copied.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.config import Localizer
from pnc_core.extract import Tail

Scores = dict[str, Tensor]


def score_channels(
    tail: Tail, batches: Iterable[tuple[Tensor, Tensor]], localizer: Localizer, generator: torch.Generator
) -> Scores:
    """How much every channel of every group matters for the cloned classes.

    Args:
        tail: Opened tail, unmasked; left as it was.
        batches: Pairs of stitched activations (N, *shape) and labels int64 (N,) among
            the cloned classes.
        localizer: `fisher`: mean over images of the squared derivative of the loss by
            the channel's gate (Theis et al. 2018, Molchanov et al. 2019); `taylor`:
            absolute value of its mean; `magnitude`: L2 norm of the weights that make
            the channel; `random`: uniform, the control.
        generator: For `random`.

    Returns:
        Scores >= 0, float32 (width,), by group.
    """
    if localizer == "magnitude":
        return {g.name: _magnitude(tail, g.producers) for g in tail.groups}
    if localizer == "random":
        return {g.name: torch.rand(g.width, generator=generator) for g in tail.groups}
    total: Scores = {g.name: torch.zeros(g.width) for g in tail.groups}
    images = 0
    for activation, labels in batches:
        images += len(labels)
        for name, derivative in _gate_derivatives(tail, activation, labels).items():
            total[name] += (derivative.square() if localizer == "fisher" else derivative).sum(0).cpu()
    return {name: (value / images).abs() for name, value in total.items()}


def _magnitude(tail: Tail, producers: tuple[str, ...]) -> Tensor:
    weights = [tail.part.get_submodule(p).get_parameter("weight").detach().flatten(1) for p in producers]
    norms: Tensor = torch.linalg.vector_norm(torch.cat(weights, dim=1), dim=1)
    return norms.cpu()


def _gate_derivatives(tail: Tail, activation: Tensor, labels: Tensor) -> Scores:
    """d loss / d gate of every single image, (N, width) by group.

    With one class there is no cross-entropy to derive: its logit stands in.
    """
    for gate in tail.gates.values():
        gate.mask = torch.ones(len(labels), len(gate.scale), device=activation.device, requires_grad=True)
    try:
        logits, _ = tail.forward(activation)
        loss = F.cross_entropy(logits, labels, reduction="sum") if logits.shape[1] > 1 else logits.sum()
        masks = {name: gate.mask for name, gate in tail.gates.items() if gate.mask is not None}
        found = torch.autograd.grad(loss, list(masks.values()), allow_unused=True)
    finally:
        tail.mask(None)
    return {n: torch.zeros_like(m) if d is None else d for (n, m), d in zip(masks.items(), found, strict=True)}


def choose_channels(tail: Tail, scores: Scores, keep: float) -> dict[str, Tensor]:
    """The channels worth most a copied number, as many as the budget allows.

    Greedy knapsack on score / cost; the best channel of every group always stays,
    so that no path is cut, even where that alone is over a tiny budget.

    Args:
        tail: Opened tail.
        scores: As `score_channels` gives them.
        keep: Share of the tail's numbers that may stay, 0..1.

    Returns:
        int64 ascending indices of the channels to keep, by group.
    """
    budget = keep * tail.numbers
    full = {g.name: g.width for g in tail.groups}
    values, owners, channels = [], [], []
    for number, group in enumerate(tail.groups):
        cost = (tail.count(full) - tail.count({**full, group.name: group.width - 1})) or 1
        value = scores[group.name].double() / cost
        value[value.argmax()] = torch.inf
        values.append(value)
        owners.append(torch.full((group.width,), number))
        channels.append(torch.arange(group.width))
    order = torch.cat(values).argsort(descending=True, stable=True)
    owner, channel = torch.cat(owners)[order], torch.cat(channels)[order]
    count = _largest_prefix(tail, owner, budget)
    return {g.name: channel[:count][owner[:count] == number].sort().values for number, g in enumerate(tail.groups)}


def _largest_prefix(tail: Tail, owner: Tensor, budget: float) -> int:
    """Bisect for the most channels, in order of worth, whose exact cost fits the budget."""
    low, high = len(tail.groups), len(owner)
    while low < high:
        middle = (low + high + 1) // 2
        counts = torch.bincount(owner[:middle], minlength=len(tail.groups)).tolist()
        sizes = {g.name: n for g, n in zip(tail.groups, counts, strict=True)}
        low, high = (middle, high) if tail.count(sizes) <= budget else (low, middle - 1)
    return low
