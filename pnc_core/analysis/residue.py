"""What a module still knows of classes that were not cloned, as a linear probe reads it.

A probe is a ridge classifier on what a network computes: its logits, and the mean and
spread of every channel at its positions. It learns the classes of the source that were left
out, and is judged on images it did not learn from. A module sees the image through the target's
first layers, so that its figure alone says little: it is read beside the whole source, the target
alone, and as many channels of the source drawn at random.

References:
    Own choice. Linear probes are known (Alain & Bengio, "Understanding intermediate layers using linear classifier
    probes", 2016).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.analysis.watermark import binomial_tail
from pnc_core.config import NetworkSpec
from pnc_core.devices import full_precision
from pnc_core.errors import DataError
from pnc_core.graph.features import Reader, run_part
from pnc_core.graph.positions import trace
from pnc_core.images import ImageSet, batches, preprocess
from pnc_core.module.bundle import Bundle
from pnc_core.module.entry import entered, phi_of
from pnc_core.module.head import pool_taps
from pnc_core.module.module import load_module
from pnc_core.module.tail import Tail, open_tail

FOLDS = 5
"""Every image is judged once, by a probe that learned from the other folds."""
DRAWS = 19
"""Modules of random channels."""
PER_CLASS = 100
"""Images of each class, at most."""
IMAGES = 2000
"""Images of all classes, at most: a probe solves for as many numbers."""
RIDGES = tuple(10.0**power for power in range(-4, 3))
"""Penalties that a probe chooses from, on features of variance 1."""
BATCH = 128
Network = tuple[nn.Module, NetworkSpec]


@dataclass(frozen=True)
class ProbeAccuracy:
    """How well one probe does."""

    accuracy: float
    """Share of images that are recognised, 0..1; every class has equally many."""
    spread: float
    """Standard deviation over the folds."""


@dataclass(frozen=True)
class Residue:
    """What can be read of the classes that were left out."""

    classes: tuple[str, ...]
    """Classes of the source that were not cloned and have images."""
    images: int
    """Of each class."""
    chance: float
    """Accuracy of guessing."""
    source: ProbeAccuracy
    """Of the uncut source behind the module's position, on the source's own activations."""
    target: ProbeAccuracy
    """Of the target alone: whoever has a module's answers has these."""
    module: ProbeAccuracy
    """Of the module alone, with all that it learned."""
    together: ProbeAccuracy
    """Of target and module side by side."""
    slices: ProbeAccuracy
    """Of the module's channels alone, without what was learned inside."""
    random: ProbeAccuracy
    """Of as many channels of each group at random; mean accuracy, and its standard deviation over the draws."""
    p_added: float
    """That `together` recognises more images than `target` by luck: exact sign test on images that one of them gets."""
    p_random: float
    """How often random channels are read no better than the module's own: by rank among the draws."""

    @property
    def added(self) -> float:
        """What the module adds to what the target shows, in accuracy."""
        return self.together.accuracy - self.target.accuracy


def residue(target: Network, source: Network, bundle: Bundle, images: ImageSet, *, seed: int = 0) -> Residue:
    """Try to read the classes that were not cloned out of a module; no network is changed.

    Args:
        target: The frozen target in eval mode, and its spec.
        source: The frozen source in eval mode, and its spec.
        bundle: Thin or full, made for this target and cut from this source.
        images: Labelled images that no network was trained on; those of other classes are ignored.
        seed: Of folds and random channels.

    Raises:
        DataError: fewer than two classes that were not cloned have an image for every fold.
        PncError: bundle and networks do not belong together.
    """
    generator = torch.Generator().manual_seed(seed)
    used = _evenly(images, bundle, generator)
    views = list(_views(target, source, bundle, used, generator))
    seen = {name: torch.cat([view[name] for view in views]) for name in views[0]}
    right = {name: _recognised(x, used.labels, len(used.classes)) for name, x in seen.items()}
    accuracies = {name: _probe_accuracy(answers) for name, answers in right.items()}
    drawn = torch.tensor([accuracies[f"random {i}"].accuracy for i in range(DRAWS)]).double()
    return Residue(
        classes=used.classes,
        images=len(used) // len(used.classes),
        chance=1 / len(used.classes),
        **{name: accuracies[name] for name in ("source", "target", "module", "together", "slices")},
        random=ProbeAccuracy(float(drawn.mean()), float(drawn.std())),
        p_added=_sign_test(right["together"], right["target"]),
        p_random=_rank(right["slices"], [right[f"random {i}"] for i in range(DRAWS)]),
    )


def _evenly(images: ImageSet, bundle: Bundle, generator: torch.Generator) -> ImageSet:
    """Equally many images of every class that was left out, as many for every fold, in folds one after another."""
    spec, cloned = bundle.manifest.source, bundle.manifest.classes
    left = images.only([c for c in spec.classes if c not in cloned])
    counts = torch.bincount(left.labels, minlength=len(left.classes))
    left = left.only([c for c, count in zip(left.classes, counts.tolist(), strict=True) if count >= FOLDS])
    if len(left.classes) < 2:
        raise DataError(
            f"images: expected {FOLDS} or more of two classes of the source that were not cloned, got "
            f"{dict(zip(spec.classes, counts.tolist(), strict=False))}; add some"
        )
    least = int(torch.bincount(left.labels).min())
    number = min(least, PER_CLASS, max(FOLDS, IMAGES // len(left.classes))) // FOLDS
    rows = []
    for label in range(len(left.classes)):
        members = torch.nonzero(left.labels == label).flatten()
        rows.append(members[torch.randperm(len(members), generator=generator)][: number * FOLDS].reshape(FOLDS, number))
    return left.take(torch.cat(rows, dim=1).flatten())


def _views(
    target: Network, source: Network, bundle: Bundle, images: ImageSet, generator: torch.Generator
) -> Iterator[dict[str, Tensor]]:
    """Batch by batch what every probe is given: float32 (N, D) by the probe's name."""
    traced, position, classes = trace(*target), bundle.manifest.position, bundle.manifest.classes
    module = load_module(bundle, traced, source[0]).to(traced.device)
    whole = trace(*source)
    opened = open_tail(whole, position.source, [source[1].classes.index(c) for c in classes])
    own = {group.name: bundle.tensors[f"kept.{group.name}"].long() for group in opened.groups}
    masks = {"slices": own, **{f"random {i}": _drawn(opened, own, generator) for i in range(DRAWS)}}
    seen = traced.taps
    read_target = Reader(traced, [p.name for p in seen])
    read_source = Reader(whole, opened.taps)
    for rows in batches(len(images), BATCH):
        pixels = images.views[rows]
        with torch.no_grad():
            logits, activations = read_target(preprocess(pixels, target[1], traced.device))
            activations |= entered([bundle.manifest], pixels, traced.device)
            entering = module.adapter(phi_of(bundle.manifest, activations))
            views = {
                "source": _features(*_read(read_source, preprocess(pixels, source[1], whole.device), opened), opened),
                "target": _pooled(logits, [activations[p.name] for p in seen], [p.axis for p in seen]),
                "module": _features(*run_part(module.part, entering), opened),
            }
            for name, kept in masks.items():
                opened.mask(kept)
                views[name] = _features(*opened.forward(entering.to(whole.device)), opened)
        yield {**views, "together": torch.cat([views["target"], views["module"]], dim=1)}


def _drawn(opened: Tail, like: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """As many channels of every group, at random."""
    return {g.name: torch.randperm(g.width, generator=generator)[: len(like[g.name])] for g in opened.groups}


def _read(read: Reader, x: Tensor, opened: Tail) -> tuple[Tensor, list[Tensor]]:
    logits, activations = read(x)
    return logits, [activations[name] for name in opened.taps]


def _features(logits: Tensor, taps: Sequence[Tensor], opened: Tail) -> Tensor:
    return _pooled(logits, taps, opened.tap_axes)


def _pooled(logits: Tensor, taps: Sequence[Tensor], axes: Sequence[int]) -> Tensor:
    pooled = [pool_taps(taps, axes, 1)] if taps else []  # a tail of one layer has none
    return torch.cat([logits.float(), *pooled], dim=1).cpu()


@full_precision()
def _recognised(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Which images a probe gets right that learned from the other folds, bool (FOLDS, images of a fold)."""
    folds = torch.arange(len(x)).reshape(FOLDS, -1)
    right = []
    for fold in folds:
        others = folds[(folds != fold).any(1)].flatten()
        scale = x[others].std(0)
        varies = scale > 1e-6
        z = ((x - x[others].mean(0)) / scale)[:, varies].double()
        right.append(_probe(z[others], labels[others], z[fold], classes) == labels[fold])
    return torch.stack(right)


def _probe(x: Tensor, labels: Tensor, asked: Tensor, classes: int) -> Tensor:
    """Labels that a ridge classifier gives; its penalty is the one that leaves most images right when left out."""
    wanted = F.one_hot(labels, classes).double() - 1 / classes
    values, vectors = torch.linalg.eigh(x @ x.T / max(1, x.shape[1]))
    best: tuple[float, Tensor] = -1.0, wanted
    for ridge in RIDGES:
        inverse = (vectors / (values.clamp_min(0) + ridge)) @ vectors.T
        dual = inverse @ wanted
        left_out = wanted - dual / inverse.diagonal()[:, None]
        share = float((left_out.argmax(1) == labels).double().mean())
        if share > best[0]:
            best = share, dual
    return (asked @ x.T @ best[1]).argmax(1)


def _probe_accuracy(right: Tensor) -> ProbeAccuracy:
    folds = right.double().mean(1)
    return ProbeAccuracy(float(folds.mean()), float(folds.std()))


def _rank(own: Tensor, drawn: Sequence[Tensor]) -> float:
    """Share of all, itself among them, of which no more images are right than of one's own.

    Images are counted: means over folds of equally many differ in their last bit.
    """
    return (1 + sum(int(right.sum()) <= int(own.sum()) for right in drawn)) / (1 + len(drawn))


def _sign_test(more: Tensor, less: Tensor) -> float:
    """How likely the first wins at least so many of the images that only one of two gets, were each a coin's toss."""
    wins, tosses = int((more & ~less).sum()), int((more ^ less).sum())
    return binomial_tail(wins, tosses)
