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
from contextlib import AbstractContextManager, ExitStack
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
    fit = LogitsFit(insertion)
    if fit.adapter is None:
        return insertion
    sums = fit.sums()
    target = Reader(job.target, [insertion.position.target], logits=False)
    source = Reader(job.source, [])
    images = job.train.sample(LOGITS_IMAGES, job.generator("mend", insertion.position))
    with fit:
        for batch in job.read(images, target=target, source=source, exact=True):
            with torch.no_grad(), full_precision():
                own, _ = fit.insertion.forward(batch)
            sums.add(fit.taken(), batch.own - own)
    fit.set(sums)
    return fit.insertion


class LogitsFit(AbstractContextManager["LogitsFit"]):
    """Fits the parallel adapter beside the layer that makes the logits on inputs of the layer. Inside its context it
    records them while the tail runs.

    The adapter adds U x + b to the logits, so logits that were made without it need no second run of the tail.
    """

    def __init__(self, insertion: Insertion) -> None:
        layers = [str(node.target) for node in readout(insertion.tail.part)]
        self.insertion = insertion
        """With the adapter, which changes nothing before the fit."""
        self.adapter: ParallelAdapter | None = None
        """None if no linear layer makes the logits."""
        if layers:
            self.insertion = replace(insertion, tail=with_parallel_adapters(insertion.tail, layers))
            self.adapter = self.insertion.tail.inner[layers[0]]
        self._read: list[Tensor] = []
        self._hooks = ExitStack()

    def __enter__(self) -> "LogitsFit":
        if self.adapter is not None:
            hook = self.adapter.register_forward_pre_hook(lambda _, args: self._read.append(args[0].detach().cpu()))
            self._hooks.enter_context(hook)
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def taken(self) -> Tensor:
        """The recorded inputs (N, C_in) of all batches since the last call, float32 on the CPU."""
        inputs = torch.cat(self._read).float()
        self._read.clear()
        return inputs

    def sums(self) -> RidgeSums:
        """Empty sums for the ridge regression of missing logits on inputs of the layer."""
        assert self.adapter is not None
        return RidgeSums(self.adapter.up.shape[1], self.adapter.up.shape[0])

    @torch.no_grad()
    def set(self, sums: RidgeSums) -> None:
        """Set the adapter to the solution of the ridge regression."""
        assert self.adapter is not None
        up, bias = sums.solve(LOGITS_RIDGE)
        self.adapter.up.copy_(up)
        self.adapter.bias.copy_(bias)

    def fitted(self, own: Tensor, wanted: Tensor, fitting: Tensor) -> Tensor:
        """Fit the adapter to the recorded inputs of all N images.

        Args:
            own: Logits (N, K) that the tail made while its inputs were recorded.
            wanted: The source's logits (N, K) of the same classes.
            fitting: Which images the fit may use, bool (N,).

        Returns:
            Logits (N, K) of the tail with the fitted adapter.
        """
        if self.adapter is None:
            return own
        inputs, sums = self.taken(), self.sums()
        sums.add(inputs[fitting], (wanted - own)[fitting])
        self.set(sums)
        with torch.no_grad(), full_precision():
            correction: Tensor = self.adapter(inputs.to(self.adapter.up.device))
        return own + correction.cpu()
