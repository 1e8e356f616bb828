"""Trains targets and sources, or loads them from files named by a hash of spec, recipe, suite and seed."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from app.sources.fit import fitted
from benchmarks.comparison.data import Split
from benchmarks.comparison.training import Recipe, fit
from pnc_core.config import NetworkSpec
from pnc_core.files import written_whole
from pnc_core.graph.architectures import build_network, load_network

Network = tuple[nn.Module, NetworkSpec]


def train_or_load(
    split: Split,
    classes: tuple[str, ...],
    folder: Path,
    recipe: Recipe,
    *,
    architecture: str | None = None,
    step: Callable[[int], None] = lambda images: None,
) -> Network:
    """A network for `classes`, trained on all their training images.

    Args:
        split: Images and suite.
        classes: In the order of the logits.
        folder: Holds the files of trained networks.
        recipe: A part of the file's name, so that another recipe trains another network.
        architecture: Replaces the suite's architecture.
        step: Called with the number of images after every batch of training.
    """
    spec = split.spec(classes, architecture)
    facts = {"spec": asdict(spec), "recipe": asdict(recipe), "suite": split.suite.name, "seed": split.seed}
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{split.suite.name}-{split.seed}-{spec.architecture.replace('/', '-')}-{name}.safetensors"
    generator = torch.Generator().manual_seed(int(name[:8], 16))
    network = build_network(spec)
    if path.is_file():
        network.load_state_dict(safetensors.torch.load_file(path))
        return network.to(recipe.device).eval().requires_grad_(False), spec
    with torch.random.fork_rng():
        torch.manual_seed(int(name[:8], 16))
        network = build_network(spec).train()
    fit(
        network, spec, split.train.only(classes), recipe, generator, step=step, checkpoint=path.with_suffix(".training")
    )
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as half:
        safetensors.torch.save_file({n: t.cpu().contiguous() for n, t in network.state_dict().items()}, half)
    return network, spec


PUBLISHED = "resnet20-12fca82f.th"
"""A ResNet-20 for CIFAR-10, as github.com/akamaster/pytorch_resnet_cifar10 publishes it; 91.7 % on test images."""


def networks_of(split: Split, folder: Path, data_root: Path | None) -> tuple[Network, Network]:
    """The target and the source of a split, trained or loaded; the suite `public` reads its source from the data root.

    Args:
        split: Images and suite.
        folder: Holds the files of trained networks.
        data_root: Holds the file `PUBLISHED` for the suite `public`.
    """
    recipe = zoo_recipe(split, "cpu", "float32")
    target = train_or_load(split, split.target, folder, recipe)
    if split.suite.name != "public":
        return target, train_or_load(split, split.source, folder, recipe)
    file = (data_root or Path()) / PUBLISHED
    if not file.is_file():
        raise SystemExit(f"--data-root: expected {PUBLISHED} in it, got no such file")
    spec = NetworkSpec(
        architecture="cifar/resnet20",
        options={"shortcut": "pad-both"},
        classes=split.source,
        input_size=split.suite.input_size,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    return target, load_published(file, spec)


def load_published(file: Path, spec: NetworkSpec) -> Network:
    """A network with weights from a file as its author published it."""
    with tempfile.TemporaryDirectory() as folder:
        network = load_network(spec, fitted(file, spec, Path(folder), note=lambda text: None))
    return network.eval().requires_grad_(False), spec


def zoo_recipe(split: Split, device: str, precision: str) -> Recipe:
    """The recipe that trains targets and sources."""
    return Recipe(split.suite.zoo_epochs, augment=split.suite.augment, device=device, precision=precision)
