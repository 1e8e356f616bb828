"""Localization: which channels of the source carry the cloned classes.

Scores are taken *through the stitched input* A(phi), so that what is kept
depends on where and how the module is inserted (the paper's abstract: localization
and insertion are intertwined). The budget is exact, in numbers copied.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.config import Localizer
from pnc_core.graph.groups import ChannelGroup
from pnc_core.graph.layouts import COLUMNS, features
from pnc_core.method.lime import VARIANTS, cell_count, surrogate, variants
from pnc_core.module.tail import Tail

Scores = dict[str, Tensor]
LIME_IMAGES = 16
"""Images of a batch that `lime` looks at: each costs 32 forward passes."""
LIME_PROBES = 2
"""Random projections of an image's surrogate whose derivatives `lime` takes."""


def score_channels(
    tail: Tail, batches: Iterable[tuple[Tensor, Tensor]], localizer: Localizer, generator: torch.Generator
) -> Scores:
    """How much every channel of every group matters for the cloned classes.

    Args:
        tail: Opened tail, unmasked; left as it was.
        batches: Pairs of stitched activations (N, *shape) and labels int64 (N,) among
            the cloned classes; `lime` does not read the labels.
        localizer: `log-odds`: mean absolute derivative of log p / (1 - p) of the label, p
            among the cloned classes, by the channel's gate (own choice: it does not vanish
            where the source is sure); `fisher`: mean over images of the squared derivative of the loss by
            the channel's gate (Theis et al. 2018, Molchanov et al. 2019); `taylor`:
            absolute value of its mean; `gradient-activation`: mean absolute value of
            the derivative of the label's own logit;
            `lime`: how fast the local behaviour
            leaves the source's (see `_lime`); `magnitude`: L2 norm of the weights that
            make the channel; `random`: uniform, the control.
        generator: For `random` and `lime`.

    Returns:
        Scores >= 0, float32 (width,), by group.
    """
    if localizer == "magnitude":
        return {g.name: _magnitude(tail, g) for g in tail.groups}
    if localizer == "random":
        return {g.name: torch.rand(g.width, generator=generator) for g in tail.groups}
    total: Scores = {g.name: torch.zeros(g.width) for g in tail.groups}
    images = 0
    for batch in batches:
        found = _ROWS[localizer](tail, *batch, generator)
        images += len(next(iter(found.values())))
        for name, rows in found.items():
            total[name] += rows.sum(0).cpu()
    return {name: (value / images).abs() for name, value in total.items()}


def _magnitude(tail: Tail, group: ChannelGroup) -> Tensor:
    """L2 norm of all rows of all layers that make a channel."""
    total = torch.zeros(group.width)
    for producer in group.producers:
        module = tail.part.get_submodule(producer)
        weight = next(getattr(module, name) for name in COLUMNS if hasattr(module, name))
        rows = weight.detach().flatten(1).square().sum(1).cpu()
        pieces = tail.layouts[producer].outputs
        for piece, made in zip(pieces, rows.split([features((p,), {}) for p in pieces]), strict=True):
            if piece.group == group.name:
                total += made.reshape(piece.width, piece.repeat).sum(1)
    return total.sqrt()


def _fisher(tail: Tail, activation: Tensor, labels: Tensor, generator: torch.Generator) -> Scores:
    return {n: d.square() for n, d in _taylor(tail, activation, labels, generator).items()}


def _taylor(tail: Tail, activation: Tensor, labels: Tensor, generator: torch.Generator) -> Scores:
    del generator
    with _OpenGates(tail, len(labels)) as gates:
        return gates.derivatives(_loss(tail.forward(activation)[0], labels).sum())


def _gradient_activation(tail: Tail, activation: Tensor, labels: Tensor, generator: torch.Generator) -> Scores:
    """A gate's derivative is the activation times its derivative, summed over the channel's places."""
    del generator
    with _OpenGates(tail, len(labels)) as gates:
        own = tail.forward(activation)[0].gather(1, labels[:, None])
        return {n: d.abs() for n, d in gates.derivatives(own.sum()).items()}


def _log_odds(tail: Tail, activation: Tensor, labels: Tensor, generator: torch.Generator) -> Scores:
    """The derivative of the cross-entropy is 1 - p times that of log p / (1 - p): this one does without that factor."""
    del generator
    with _OpenGates(tail, len(labels)) as gates:
        logits = tail.forward(activation)[0]
        odds = logits.gather(1, labels[:, None])[:, 0]
        if logits.shape[1] > 1:  # with one class there is no other: its logit stands in
            odds = odds - logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
        return {n: d.abs() for n, d in gates.derivatives(odds.sum()).items()}


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (N,). With one class there is none to derive: its logit stands in."""
    return F.cross_entropy(logits, labels, reduction="none") if logits.shape[1] > 1 else logits[:, 0]


class _OpenGates:
    """Every image has gates of its own, all ones, while the block runs."""

    def __init__(self, tail: Tail, images: int, repeat: int = 1) -> None:
        self._tail = tail
        device = next(iter(tail.gates.values())).scale.device
        self._masks = {
            n: torch.ones(images, len(g.scale), device=device, requires_grad=True) for n, g in tail.gates.items()
        }
        self._repeat = repeat

    def __enter__(self) -> "_OpenGates":
        for name, gate in self._tail.gates.items():
            gate.mask = self._masks[name].repeat_interleave(self._repeat, 0)
        return self

    def __exit__(self, *error: object) -> None:
        self._tail.mask(None)

    def derivatives(self, value: Tensor, *, again: bool = False) -> Scores:
        """d value / d gate of every image, (N, width) by group; `again`: the graph is needed once more."""
        found = torch.autograd.grad(value, list(self._masks.values()), allow_unused=True, retain_graph=again)
        rows = zip(self._masks.items(), found, strict=True)
        return {name: torch.zeros_like(mask) if d is None else d for (name, mask), d in rows}


def _lime(tail: Tail, activation: Tensor, labels: Tensor, generator: torch.Generator) -> Scores:
    """The diagonal of the Gauss-Newton matrix of `lime.local_mismatch` at open gates.

    The mismatch |w(g) - w(1)|^2 / |w(1)|^2 between the local surrogates with gates g
    and without is zero at g = 1, and so is its gradient: it says nothing about a single channel. Its second
    derivative does: to second order, closing gate c costs sum_i (dw_i / dg_c)^2 /
    |w|^2, exactly what Fisher's score is for the cross-entropy. The sum over all coefficients i
    is estimated without bias by random signs s, E (d(s . w) / dg_c)^2 (Hutchinson
    1990): two backward passes instead of 17 K.

    Cells are blocked in the stitched activation and not in the image: it is the tail
    that is cut down, its function of the activation has to stay, and the target need not run on
    every variant. The mean of an activation's channel is a likely value, black is not.
    """
    chosen = torch.randperm(len(labels), generator=generator)[:LIME_IMAGES].to(activation.device)
    x = activation[chosen]
    total: Scores = {}
    with _OpenGates(tail, len(x), VARIANTS) as gates:
        logits, _ = tail.forward(variants(x, axis=tail.axis).flatten(0, 1))
        local = surrogate(logits.reshape(len(x), VARIANTS, -1), cell_count(tuple(x.shape), tail.axis))
        size = local.detach().square().sum((1, 2)) + 1e-6
        for _ in range(LIME_PROBES):
            signs = torch.randint(0, 2, local.shape, generator=generator).to(local) * 2 - 1
            for name, d in gates.derivatives((signs * local).sum(), again=True).items():
                total[name] = total.get(name, 0) + d.square() / (LIME_PROBES * size[:, None])
    return total


_ROWS: dict[str, Callable[[Tail, Tensor, Tensor, torch.Generator], Scores]] = {
    "fisher": _fisher,
    "taylor": _taylor,
    "gradient-activation": _gradient_activation,
    "log-odds": _log_odds,
    "lime": _lime,
}
"""What is averaged over images: (N, width) by group."""
