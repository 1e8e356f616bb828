"""Localization: score how much every channel of the source matters for the cloned classes.

The tail runs on the stitched input A(phi), not on the source's own activation. So the scores depend on the position and
on the adapter (the paper's abstract: localization and insertion depend on each other). `pnc_core.method.mask` chooses
channels by these scores.

Every image x has one gate g_c = 1 per channel c. With the label y, the logits z, p = softmax(z) over the cloned
classes, and the cross-entropy L = -log p_y, the score I_c of a channel is

    log-odds               mean_x |d log(p_y / (1 - p_y)) / dg_c|      (default)
    fisher                 mean_x (dL / dg_c)^2
    taylor                 |mean_x dL / dg_c|
    gradient-activation    mean_x |dz_y / dg_c|
    lime                   mean_x sum_i (dw_i / dg_c)^2 / |w|^2        (w: coefficients of the LIME surrogate)
    magnitude              L2 norm of the weights that make the channel
    random                 uniform in [0, 1)                           (control)

With one cloned class p_y = 1, so z_y replaces both the log-odds and L.

References:
    `fisher`: Theis et al. 2018. `taylor`: Molchanov et al. 2019. `log-odds` is our own choice: dL / dg_c contains
    the factor 1 - p_y and vanishes where the source is sure, the log-odds do not.
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
"""Images per batch that `lime` uses. Every image needs 32 forward passes."""
LIME_PROBES = 2
"""Random projections of the surrogate's coefficients that `lime` differentiates."""


def score_channels(
    tail: Tail, batches: Iterable[tuple[Tensor, Tensor]], localizer: Localizer, generator: torch.Generator
) -> Scores:
    """Score every channel of every group.

    Args:
        tail: Opened tail, unmasked; not changed.
        batches: Pairs of stitched activations (N, *shape) and labels int64 (N,). A label is an index among the cloned
            classes; `lime` does not read the labels.
        localizer: The formula of the score; the module's docstring lists them.
        generator: Source of randomness for `random` and `lime`.

    Returns:
        Scores >= 0, float32 (width,), by group; empty for a tail without groups.
    """
    if not tail.groups:
        return {}
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
    """L2 norm over all layers that make a channel: sqrt(sum of the squared weights of its rows)."""
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
    """dz_y / dg_c = sum over places p of a_cp dz_y / da_cp, where a_c is the channel's activation."""
    del generator
    with _OpenGates(tail, len(labels)) as gates:
        own = tail.forward(activation)[0].gather(1, labels[:, None])
        return {n: d.abs() for n, d in gates.derivatives(own.sum()).items()}


def _log_odds(tail: Tail, activation: Tensor, labels: Tensor, generator: torch.Generator) -> Scores:
    """log(p_y / (1 - p_y)) = z_y - logsumexp of the other logits."""
    del generator
    with _OpenGates(tail, len(labels)) as gates:
        logits = tail.forward(activation)[0]
        odds = logits.gather(1, labels[:, None])[:, 0]
        if logits.shape[1] > 1:
            odds = odds - logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
        return {n: d.abs() for n, d in gates.derivatives(odds.sum()).items()}


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (N,); with one class it is constant 0, so the logit (N,) is returned instead."""
    return F.cross_entropy(logits, labels, reduction="none") if logits.shape[1] > 1 else logits[:, 0]


class _OpenGates:
    """Within the `with` block every image has its own gates, all ones and differentiable."""

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
        """Derivatives of `value` by every image's gates, (N, width) by group.

        Args:
            value: A scalar, the sum over images.
            again: Keep the autograd graph for another call.
        """
        found = torch.autograd.grad(value, list(self._masks.values()), allow_unused=True, retain_graph=again)
        rows = zip(self._masks.items(), found, strict=True)
        return {name: torch.zeros_like(mask) if d is None else d for (name, mask), d in rows}


def _lime(tail: Tail, activation: Tensor, labels: Tensor, generator: torch.Generator) -> Scores:
    """The diagonal of the Gauss-Newton matrix of `lime.local_mismatch` at g = 1.

    Let w(g) be the coefficients of the local surrogate with gates g. The mismatch

        m(g) = |w(g) - w(1)|^2 / |w(1)|^2

    has value 0 and gradient 0 at g = 1. To second order, closing gate c alone costs

        m = sum_i (dw_i / dg_c)^2 / |w|^2.

    Random signs s_i give an unbiased estimate of the sum (Hutchinson 1990):

        sum_i (dw_i / dg_c)^2 = E_s (d(s . w) / dg_c)^2

    This needs `LIME_PROBES` backward passes instead of one per coefficient (17 K of them).

    Cells are blocked in the stitched activation, not in the image. The tail is cut down, so the tail as a function of
    its input has to stay; and the target need not run on every variant. A blocked cell holds the mean of the
    activation's channel, which is a likely value.
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
"""Scores of single images, (N, width) by group, before the mean over images."""
