"""One training loop for the zoo's networks and for every rival that is trained."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.config import NetworkSpec
from pnc_core.data import ImageSet, augment, batches, preprocess

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(network, preprocessed images, labels) -> loss."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a network is trained: SGD with momentum and one cycle."""

    epochs: int
    rate: float = 0.2
    batch: int = 128
    weight_decay: float = 5e-4
    augment: str = "shift-flip"
    device: str = "cpu"
    precision: str = "bfloat16"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """bfloat16 where asked for: twice as fast on processors and accelerators that have it."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


def cross_entropy(network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Plain cross-entropy."""
    return F.cross_entropy(network(x).float(), labels)


def fit(
    network: nn.Module,
    spec: NetworkSpec,
    images: ImageSet,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    loss: Loss = cross_entropy,
    parameters: Iterable[nn.Parameter] | None = None,
    step: Callable[[int], None] = lambda images: None,
) -> nn.Module:
    """Train `network` in place and return it in eval mode, frozen.

    Args:
        network: Its modes are left as they are: the caller decides which norms learn.
        spec: How images enter it.
        images: Labels are indices of the logits.
        recipe: Epochs, rate, batch.
        generator: Order and augmentation.
        loss: What is minimised.
        parameters: What is trained; all by default.
        step: Called with the number of images after every batch.
    """
    trained = list(network.parameters() if parameters is None else parameters)
    # Norms, biases and gates are not decayed: it would only pull them to zero.
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD([g for g in groups if g["params"]], lr=recipe.rate, momentum=0.9, nesterov=True)
    size = min(recipe.batch, max(8, len(images) // 8))
    steps = max(2, recipe.epochs * -(-len(images) // size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps, pct_start=0.2)
    network.to(recipe.device, memory_format=torch.channels_last)
    for _ in range(recipe.epochs):
        for index in batches(len(images), size, generator):
            pixels = augment(images.images[index], recipe.augment, generator)  # type: ignore[arg-type]
            x = preprocess(pixels, spec, recipe.device).contiguous(memory_format=torch.channels_last)
            with recipe.autocast():
                value = loss(network, x, images.labels[index].to(recipe.device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            step(len(index))
    return network.eval().requires_grad_(False)
