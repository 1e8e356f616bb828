"""Reconstruct the outputs of a cut tail with parallel adapters, in closed form.

Let y_l be the output of layer l in the uncut tail on the source's activation, and y'_l(x_l) its output in the cut tail
on its input x_l. The parallel adapter of layer l is the ridge regression

    min_{V_l, b_l} sum |V_l x_l + b_l - (y_l - y'_l(x_l))|^2 + ridge |V_l|^2

over images and places. Layers are solved in order, so x_l already contains the adapters of earlier layers. The layer
that makes the logits comes last and matches the source's logits.

Everything runs in float32, whatever the job's precision: y_l and y'_l are nearly equal, and their difference would lose
its digits in bfloat16. Only few images are needed.

Own choice (decisions 108 and 109). Fitting a pruned layer to the output of the whole layer is known (Luo et al.,
"ThiNet", ICCV 2017); here the layer's own weights stay unchanged.
"""

import math
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from pnc_core.devices import full_precision
from pnc_core.graph.features import Reader
from pnc_core.graph.layouts import Layout, kept_features
from pnc_core.images import ImageSet
from pnc_core.method.insert import Insertion
from pnc_core.method.job import Job, traced_step
from pnc_core.module.adapter import RidgeSums, some_places
from pnc_core.module.parallel_adapter import ParallelAdapter, readout
from pnc_core.module.tail import Tail, with_parallel_adapters

LAYER_IMAGES, LAYER_NUMBERS = 512, 2**24
"""For inner layers: largest number of images, and largest number of values in their activations at the tail's start.

All images pass through the tail in one batch, so the second bound limits memory.
"""
LOGITS_IMAGES, LOGITS_RIDGE = 2000, 1e-2
"""For the logits: largest number of images, and the ridge. A strong ridge keeps the correction small."""


@traced_step("adapter")
def reconstruct_layers(job: Job, insertion: Insertion, whole: Tail, images: ImageSet) -> Insertion:
    """Add parallel adapters to a cut tail, and fit each to its layer's output in the uncut tail.

    Args:
        job: Images and frozen networks.
        insertion: Cut down, without parallel adapters; its graph is changed in place.
        whole: The same tail before the cut. It runs on the source's activation.
        images: Images to choose from, at most `LAYER_IMAGES`.
    """
    reconstructed = replace(insertion, tail=with_parallel_adapters(insertion.tail))
    if not reconstructed.tail.inner:
        return reconstructed
    phi, psi = _both(job, insertion, images)
    with torch.no_grad(), full_precision():
        wanted = _outputs(whole, psi, reconstructed.tail)
        with ExitStack() as hooks:
            for name, adapter in reconstructed.tail.inner.items():
                fit = _Fit(reconstructed.tail.part.get_submodule(name), wanted[name])
                hooks.enter_context(fit.layer.register_forward_hook(fit.see))
                hooks.enter_context(adapter.register_forward_pre_hook(fit.solve))
            reconstructed.tail.forward(reconstructed.adapter(phi))
    return reconstructed


def _both(job: Job, insertion: Insertion, images: ImageSet) -> tuple[Tensor, Tensor]:
    """The target's and the source's activation of some of the images, at the two positions."""
    where = insertion.position
    shapes = insertion.adapter.shape, job.source.position(where.source).shape
    most = max(1, min(LAYER_IMAGES, LAYER_NUMBERS // max(math.prod(shape) for shape in shapes)))
    # Not `sample`: it takes at least two images per class, which is too many for many classes of large images.
    order = torch.randperm(len(images), generator=job.generator("mend layers", where))
    images = images.take(order[:most].sort().values)
    target = Reader(job.target, [where.target], logits=False)
    source = Reader(job.source, [where.source], logits=False)
    batches = job.read(images, target=target, source=source, exact=True)
    rows = [(batch.phi(where, insertion.adapter), batch.source[where.source]) for batch in batches]
    phi, psi = (torch.cat(column) for column in zip(*rows, strict=True))
    return phi, psi


def _outputs(whole: Tail, psi: Tensor, tail: Tail) -> dict[str, Tensor]:
    """Outputs of the uncut tail's layers at some places: float32 (rows, kept channels), by layer of `tail.inner`."""
    made: dict[str, Tensor] = {}

    def see(name: str, layer: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
        rows = _rows(layer, answer)
        pieces = tail.layouts.get(name, Layout()).outputs
        made[name] = rows[:, kept_features(pieces, tail.kept).to(rows.device)] if pieces else rows

    with ExitStack() as hooks:
        for name in tail.inner:
            hooks.enter_context(whole.part.get_submodule(name).register_forward_hook(partial(see, name)))
        whole.forward(psi)
    return made


class _Fit:
    """Solves for one adapter while its tail runs: hooks call `see` after the layer and `solve` before the adapter."""

    def __init__(self, layer: nn.Module, wanted: Tensor) -> None:
        self.layer, self._wanted, self._made = layer, wanted, wanted

    def see(self, layer: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
        """Record the output of the cut layer."""
        self._made = _rows(layer, answer)

    def solve(self, adapter: ParallelAdapter, given: tuple[Tensor, ...]) -> None:
        """Set the adapter to the ridge regression of the missing output on the layer's input."""
        rows = _rows(self.layer, adapter.reads(given[0]))
        sums = RidgeSums(rows.shape[1], self._wanted.shape[1])
        sums.add(rows, self._wanted - self._made)
        adapter.approximate(*sums.solve(), rows)


def _rows(layer: nn.Module, x: Tensor) -> Tensor:
    """A copy of some places of a layer's input or output: float32 (rows, C)."""
    x = x.movedim(1, -1) if isinstance(layer, nn.Conv2d) else x
    return some_places(x.reshape(len(x), -1, x.shape[-1])).float()


@traced_step("adapter")
def reconstruct_logits(job: Job, insertion: Insertion) -> Insertion:
    """Add a parallel adapter to the layer that makes the logits, and fit it to the source's logits.

    Args:
        job: Images and frozen networks.
        insertion: Cut down, with its other parallel adapters; its graph is changed in place.

    Returns:
        The insertion with the adapter; `insertion` itself if no linear layer makes the logits.
    """
    layers = [str(node.target) for node in readout(insertion.tail.part)]
    if not layers:
        return insertion
    reconstructed = replace(insertion, tail=with_parallel_adapters(insertion.tail, layers))
    adapter = reconstructed.tail.inner[layers[0]]
    sums = RidgeSums(adapter.up.shape[1], adapter.up.shape[0])
    target = Reader(job.target, [insertion.position.target], logits=False)
    source = Reader(job.source, [])
    read: list[Tensor] = []
    with adapter.register_forward_pre_hook(lambda _, args: read.append(args[0])):
        images = job.train.sample(LOGITS_IMAGES, job.generator("mend", insertion.position))
        for batch in job.read(images, target=target, source=source, exact=True):
            with torch.no_grad(), full_precision():
                own, _ = reconstructed.forward(batch)
            sums.add(read.pop(), batch.own - own)
    up, bias = sums.solve(LOGITS_RIDGE)
    adapter.up.data.copy_(up)
    adapter.bias.data.copy_(bias)
    return reconstructed
