"""The training loop of targets, sources and trained baselines, and functions that prepare networks for it."""

import contextlib
import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from pnc_core.config import NetworkSpec
from pnc_core.files import written_whole
from pnc_core.images import ImageSet, augment, batches, preprocess

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(network, preprocessed images, labels) -> loss."""
View = Callable[[Tensor, torch.Generator], Tensor]
"""uint8 images -> augmented uint8 images."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of training: SGD with momentum, and a learning rate that follows one cycle."""

    epochs: int
    rate: float = 0.2
    batch: int = 128
    weight_decay: float = 5e-4
    augment: str = "shift-flip"
    device: str = "cpu"
    precision: str = "bfloat16"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """A context that computes in bfloat16 if `precision` says so; twice as fast on hardware with bfloat16
        instructions."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


def cross_entropy(network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Plain cross-entropy."""
    return F.cross_entropy(network(x).float(), labels)


def distillation(teacher: nn.Module, temperature: float, weight: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Make a distillation loss: (logits, preprocessed images) -> weighted KL divergence from the teacher's
    probabilities.

    The first logits are compared with the teacher's, both divided by the temperature.
    """

    def loss(logits: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            expected = (teacher(x).float() / temperature).log_softmax(1)
        got = (logits[:, : expected.shape[1]] / temperature).log_softmax(1)
        return weight * temperature**2 * F.kl_div(got, expected, reduction="batchmean", log_target=True)

    return loss


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
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train `network` in place and return it in eval mode, frozen.

    Args:
        network: Keeps its train and eval modes during training: the caller decides which norms update their statistics.
        spec: Input size and normalisation of the network.
        images: Labels are indices of the logits.
        recipe: Epochs, learning rate, batch size and so on.
        generator: Draws the order and the augmentation of the images.
        loss: The function to minimise.
        parameters: The parameters to train; all by default.
        step: Called with the number of images after every batch.
        checkpoint: File that holds the state of training after every epoch, and is deleted at the end. Interrupted
            training resumes from it and yields the same network.
    """
    trained = list(network.parameters() if parameters is None else parameters)
    # No weight decay for norms, biases and gates: it would only pull them to zero.
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD([g for g in groups if g["params"]], lr=recipe.rate, momentum=0.9, nesterov=True)
    size = min(recipe.batch, max(8, len(images) // 8))
    steps = max(3, recipe.epochs * -(-len(images) // size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=steps, pct_start=max(0.2, 2 / steps)
    )
    network.to(recipe.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learnt = network, optimizer, schedule
    done = _resume(checkpoint, learnt, generator)
    step(done * len(images))
    for epoch in range(done, recipe.epochs):
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
        if checkpoint is not None:
            _save(checkpoint, learnt, generator, epoch + 1)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return network.eval().requires_grad_(False)


def _save(file: Path, learnt: tuple[Any, ...], generator: torch.Generator, epochs: int) -> None:
    """Write the state of training as one whole file or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"learnt": [part.state_dict() for part in learnt], "generator": generator.get_state(), "epochs": epochs}
    with written_whole(file) as half:
        torch.save(state, half)


def _resume(file: Path | None, learnt: tuple[Any, ...], generator: torch.Generator) -> int:
    """Restore the state of training from the file, and return the number of finished epochs; 0 without a file."""
    if file is None or not file.is_file():
        return 0
    state = torch.load(file, weights_only=True)  # noqa: TID251 - written by `_save`; loads tensors and numbers only
    for part, was in zip(learnt, state["learnt"], strict=True):
        part.load_state_dict(was)
    generator.set_state(state["generator"])
    return int(state["epochs"])


def classifier(network: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the last linear layer."""
    return [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)][-1]


def widened(network: nn.Module, new: int, generator: torch.Generator) -> nn.Module:
    """Copy a network and give its classifier small random rows for new classes."""
    network = copy.deepcopy(network)
    name, before = classifier(network)
    network.set_submodule(name, wider(before, before.in_features, new, generator))
    return network


def wider(before: nn.Linear, features: int, new: int, generator: torch.Generator) -> nn.Linear:
    """Copy a classifier, with the same logits of old classes and small random rows for new classes.

    Args:
        before: The classifier of the first features.
        features: Number of input features of the copy.
        new: Number of new classes.
        generator: Draws the new rows.
    """
    old = before.out_features
    after: nn.Linear = nn.utils.skip_init(nn.Linear, features, old + new, device=before.weight.device)
    after.weight.data.copy_(0.01 * torch.randn(after.weight.shape, generator=generator))
    after.weight.data[:old] = F.pad(before.weight.data, (0, features - before.in_features))
    after.bias.data.copy_(F.pad(before.bias.data, (0, new)))
    return after


def recalibrate(network: nn.Module, spec: NetworkSpec, images: ImageSet) -> None:
    """Recompute the running statistics of all batch norms from these images. Changes the network, which ends in eval
    mode."""
    for norm in [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    device = next(network.parameters()).device
    for index in batches(len(images), 256):
        with torch.no_grad():
            network(preprocess(images.images[index], spec, device))
    network.eval()


def fisher(
    network: nn.Module, spec: NetworkSpec, images: ImageSet, generator: torch.Generator, view: View
) -> dict[str, Tensor]:
    """Diagonal Fisher information of a network's parameters.

    Labels of the augmented images are drawn from the network's own probabilities. The network is not changed.
    """
    state = {name: p.detach() for name, p in network.named_parameters()}
    device = next(iter(state.values())).device

    def loss(parameters: dict[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, parameters, (x[None],)), label[None])

    total = {name: torch.zeros_like(p) for name, p in state.items()}
    for index in batches(len(images), 50):
        x = preprocess(view(images.images[index], generator), spec, device)
        with torch.no_grad():
            drawn = torch.multinomial(network(x).softmax(1).cpu(), 1, generator=generator)[:, 0]
        for name, slope in vmap(grad(loss), (None, 0, 0))(state, x, drawn.to(device)).items():
            total[name] += slope.square().sum(0) / len(images)
    return total
