"""Mending: what a cut tail no longer answers is drawn back to the source's own, in closed form.

Cutting takes channels away from every layer behind. The parallel adapter beside a layer is the ridge regression of
what the layer lacks on what it reads: first beside the layers inside, one after another, each behind those that are
mended already, then beside the one that makes the logits.

Networks are run in float32 here, whatever the job's precision: what a layer lacks is the difference of two numbers that
are nearly the same, and on the few images that this takes it costs little.

Own choice (decisions 108 and 109); fitting a pruned layer to what the whole one made is known (Luo et al., "ThiNet",
ICCV 2017), here the layer stays what it is.
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
from pnc_core.method.insert import Insertion
from pnc_core.method.job import Job, traced_step
from pnc_core.module.adapter import RidgeSums, some_places
from pnc_core.module.parallel_adapter import ParallelAdapter, readout
from pnc_core.module.tail import Tail, with_parallel_adapters

LAYER_IMAGES, LAYER_NUMBERS = 512, 2**24
"""Images that layers inside are mended on, at most, and numbers of their activations where the tail starts: they go
through the tail at once, so that large ones have to be few."""
LOGITS_IMAGES, LOGITS_RIDGE = 2000, 1e-2
"""Images that the layer of the logits is mended on, at most; with a strong ridge it stays what it is."""


@traced_step("adapter")
def reconstruct_layers(job: Job, insertion: Insertion, whole: Tail) -> Insertion:
    """Put parallel adapters into a cut tail and fit each to what its layer makes in the uncut one.

    Args:
        job: Images and frozen networks.
        insertion: Cut down, without parallel adapters; its graph is changed in place.
        whole: The same tail before it was cut, which runs on the source's own activation.
    """
    reconstructed = replace(insertion, tail=with_parallel_adapters(insertion.tail))
    if not reconstructed.tail.inner:
        return reconstructed
    phi, psi = _both(job, insertion)
    with torch.no_grad(), full_precision():
        wanted = _made_by(whole, psi, reconstructed.tail)
        with ExitStack() as hooks:
            for name, adapter in reconstructed.tail.inner.items():
                fit = _Fit(reconstructed.tail.part.get_submodule(name), wanted[name])
                hooks.enter_context(fit.layer.register_forward_hook(fit.see))
                hooks.enter_context(adapter.register_forward_pre_hook(fit.solve))
            reconstructed.tail.forward(reconstructed.adapter(phi))
    return reconstructed


def _both(job: Job, insertion: Insertion) -> tuple[Tensor, Tensor]:
    """The target's and the source's activation of the same images, at the two positions."""
    where = insertion.position
    shapes = insertion.adapter.shape, job.source.position(where.source).shape
    most = max(1, min(LAYER_IMAGES, LAYER_NUMBERS // max(math.prod(shape) for shape in shapes)))
    # Not `sample`, which takes two of each class at least: with many classes of large images that is too much.
    order = torch.randperm(len(job.train), generator=job.generator("mend layers", where))
    images = job.train.take(order[:most].sort().values)
    target = Reader(job.target, [where.target], logits=False)
    source = Reader(job.source, [where.source], logits=False)
    batches = job.read(images, target=target, source=source, exact=True)
    rows = [(batch.phi(where, insertion.adapter), batch.source[where.source]) for batch in batches]
    phi, psi = (torch.cat(column) for column in zip(*rows, strict=True))
    return phi, psi


def _made_by(whole: Tail, psi: Tensor, tail: Tail) -> dict[str, Tensor]:
    """What an uncut tail's layers make at some places, float32 (rows, channels that are left), for those of `tail`."""
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
    """Solves for one adapter while its tail runs: first the layer answers, then the adapter beside it is asked."""

    def __init__(self, layer: nn.Module, wanted: Tensor) -> None:
        self.layer, self._wanted, self._made = layer, wanted, wanted

    def see(self, layer: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
        """Note what the layer makes of what it is given now."""
        self._made = _rows(layer, answer)

    def solve(self, adapter: ParallelAdapter, given: tuple[Tensor, ...]) -> None:
        """Make the adapter answer what the layer lacks."""
        rows = _rows(self.layer, adapter.reads(given[0]))
        sums = RidgeSums(rows.shape[1], self._wanted.shape[1])
        sums.add(rows, self._wanted - self._made)
        adapter.become(*sums.solve(), rows)


def _rows(layer: nn.Module, x: Tensor) -> Tensor:
    """Some places of what a layer reads or makes, whatever is done to it in place afterwards: float32 (rows, C)."""
    x = x.movedim(1, -1) if isinstance(layer, nn.Conv2d) else x
    return some_places(x.reshape(len(x), -1, x.shape[-1])).float()


@traced_step("adapter")
def reconstruct_logits(job: Job, insertion: Insertion) -> Insertion:
    """Draw the logits of a cut tail back to the source's own; a tail without a linear layer for them is left as it is.

    Args:
        job: Images and frozen networks.
        insertion: Cut down, with its other parallel adapters; its graph is changed in place.
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
