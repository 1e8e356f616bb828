"""One training loop for the zoo's networks and for every rival that is trained, and what some need before it."""

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
"""uint8 images -> augmented ones."""


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
        """bfloat16 where asked for: twice as fast on processors and accelerators that have instructions for it."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


def cross_entropy(network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Plain cross-entropy."""
    return F.cross_entropy(network(x).float(), labels)


def distillation(teacher: nn.Module, temperature: float, weight: float) -> Callable[[Tensor, Tensor], Tensor]:
    """(logits, preprocessed images) -> divergence of the first logits from the teacher's, both softened."""

    def loss(logits: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = (teacher(x).float() / temperature).log_softmax(1)
        got = (logits[:, : wanted.shape[1]] / temperature).log_softmax(1)
        return weight * temperature**2 * F.kl_div(got, wanted, reduction="batchmean", log_target=True)

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
    kept: Path | None = None,
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
        kept: File that keeps where training stands after every epoch, and is gone at its end: who is stopped goes on
            to the same network.
    """
    trained = list(network.parameters() if parameters is None else parameters)
    # Norms, biases and gates are not decayed: it would only pull them to zero.
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
    done = _taken_up(kept, learnt, generator)
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
        if kept is not None:
            _keep(kept, learnt, generator, epoch + 1)
    if kept is not None:
        kept.unlink(missing_ok=True)
    return network.eval().requires_grad_(False)


def _keep(file: Path, learnt: tuple[Any, ...], generator: torch.Generator, epochs: int) -> None:
    """Write where training stands, in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"learnt": [part.state_dict() for part in learnt], "generator": generator.get_state(), "epochs": epochs}
    with written_whole(file) as half:
        torch.save(state, half)


def _taken_up(file: Path | None, learnt: tuple[Any, ...], generator: torch.Generator) -> int:
    """Go back to where training stood; returns after how many epochs."""
    if file is None or not file.is_file():
        return 0
    state = torch.load(file, weights_only=True)  # noqa: TID251 - tensors and numbers alone, of our own making
    for part, was in zip(learnt, state["learnt"], strict=True):
        part.load_state_dict(was)
    generator.set_state(state["generator"])
    return int(state["epochs"])


def classifier(network: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the last linear layer."""
    return [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)][-1]


def widened(network: nn.Module, new: int, generator: torch.Generator) -> nn.Module:
    """A copy of a network whose classifier has small random rows for new classes."""
    network = copy.deepcopy(network)
    name, before = classifier(network)
    network.set_submodule(name, wider(before, before.in_features, new, generator))
    return network


def wider(before: nn.Linear, features: int, new: int, generator: torch.Generator) -> nn.Linear:
    """A classifier that answers for the old classes as `before` does and has small random rows for new ones.

    Args:
        before: Reads the first of the features.
        features: How many there are to be.
        new: How many rows are added.
        generator: Draws them.
    """
    old = before.out_features
    after: nn.Linear = nn.utils.skip_init(nn.Linear, features, old + new, device=before.weight.device)
    after.weight.data.copy_(0.01 * torch.randn(after.weight.shape, generator=generator))
    after.weight.data[:old] = F.pad(before.weight.data, (0, features - before.in_features))
    after.bias.data.copy_(F.pad(before.bias.data, (0, new)))
    return after


def recalibrate(network: nn.Module, spec: NetworkSpec, images: ImageSet) -> None:
    """Give the norms of a network the statistics of what they see now."""
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
    """Diagonal Fisher information of a network's numbers, from views of images labelled by its own draw.

    The network stays as it is.
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
