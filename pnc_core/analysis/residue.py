"""Measure how much a module reveals of classes that were not cloned, with linear probes.

A probe is a ridge classifier from a network's features (its logits; mean and standard deviation of every channel at its
positions) to the source's classes that were not cloned. Cross-validation gives its accuracy. With standardised features
X (N, D), Y the one-hot labels minus 1 / number of classes, and the kernel matrix K_X = X X' / D:

    dual A = (K_X + ridge I)^-1 Y,    prediction for x: argmax of x X' A
    leave-one-out prediction of image i: Y_i - A_i / ((K_X + ridge I)^-1)_ii

The ridge with the best leave-one-out accuracy is chosen. A module reads the image through the target's first layers, so
its accuracy is compared with the whole source, the target alone, and random channels of the source.

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
from pnc_core.module.module import load_module, rows_of
from pnc_core.module.tail import Tail, open_tail

FOLDS = 5
"""Number of folds. A probe predicts each fold after training on the other folds."""
DRAWS = 19
"""Number of modules with random channels."""
PER_CLASS = 100
"""Largest number of images per class."""
IMAGES = 2000
"""Largest number of images. A probe solves a linear system of this size."""
RIDGES = tuple(10.0**power for power in range(-4, 3))
"""Candidate ridges of a probe, for features of variance 1."""
BATCH = 128
Network = tuple[nn.Module, NetworkSpec]


@dataclass(frozen=True)
class ProbeAccuracy:
    """Accuracy of one probe."""

    accuracy: float
    """Share of correctly classified images, 0..1; every class has equally many images."""
    spread: float
    """Standard deviation over the folds."""


@dataclass(frozen=True)
class Residue:
    """Accuracies of probes for the classes that were not cloned."""

    classes: tuple[str, ...]
    """Classes of the source that were not cloned and have images."""
    images: int
    """Number of images per class."""
    chance: float
    """Accuracy of guessing: 1 / number of classes."""
    source: ProbeAccuracy
    """Probe of the uncut source behind the module's position, on the source's own activations."""
    target: ProbeAccuracy
    """Probe of the target alone. Everybody who can run the module also has the target."""
    module: ProbeAccuracy
    """Probe of the module alone, with its trained parts."""
    together: ProbeAccuracy
    """Probe of target and module features together."""
    slices: ProbeAccuracy
    """Probe of the module's channels without calibration and parallel adapters."""
    random: ProbeAccuracy
    """Probes of equally many random channels per group: mean accuracy, and standard deviation over the draws."""
    p_added: float
    """P-value of `together` against `target`: exact sign test on images that only one of both classifies correctly."""
    p_random: float
    """Share of draws (the module's own channels included) whose accuracy is at most that of `slices`."""

    @property
    def added(self) -> float:
        """together - target, in accuracy."""
        return self.together.accuracy - self.target.accuracy


def residue(target: Network, source: Network, bundle: Bundle, images: ImageSet, *, seed: int = 0) -> Residue:
    """Probe a module for the classes that were not cloned; no network is changed.

    Args:
        target: The frozen target in eval mode, and its spec.
        source: The frozen source in eval mode, and its spec.
        bundle: Thin or full, made for this target and cut from this source.
        images: Labelled images that no network was trained on; other classes are ignored.
        seed: Seed of folds and random channels.

    Raises:
        DataError: fewer than two classes that were not cloned have `FOLDS` images.
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
    """Equally many images per class that was not cloned and per fold, ordered by fold."""
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
    """Features of every batch: float32 (N, D), by name of the probe."""
    traced, position = trace(*target), bundle.manifest.position
    module = load_module(bundle, traced, source[0]).to(traced.device)
    whole = trace(*source)
    opened = open_tail(whole, position.source, rows_of(bundle.manifest))
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
    """Random channels, as many per group as in `like`."""
    return {g.name: torch.randperm(g.width, generator=generator)[: len(like[g.name])] for g in opened.groups}


def _read(read: Reader, x: Tensor, opened: Tail) -> tuple[Tensor, list[Tensor]]:
    logits, activations = read(x)
    return logits, [activations[name] for name in opened.taps]


def _features(logits: Tensor, taps: Sequence[Tensor], opened: Tail) -> Tensor:
    return _pooled(logits, taps, opened.tap_axes)


def _pooled(logits: Tensor, taps: Sequence[Tensor], axes: Sequence[int]) -> Tensor:
    pooled = [pool_taps(taps, axes, 1)] if taps else []  # a tail of one layer has no taps
    return torch.cat([logits.float(), *pooled], dim=1).cpu()


@full_precision()
def _recognised(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Correctly classified images of every fold, by a probe of the other folds: bool (FOLDS, images per fold)."""
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
    """Predicted labels of `asked` by a ridge classifier; the ridge maximises the leave-one-out accuracy on `x`."""
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
    """(1 + number of draws with at most as many correct images as `own`) / (1 + number of draws).

    Numbers of images are compared: equal accuracies, computed as means over folds, may differ in the last bit.
    """
    return (1 + sum(int(right.sum()) <= int(own.sum()) for right in drawn)) / (1 + len(drawn))


def _sign_test(more: Tensor, less: Tensor) -> float:
    """P-value of the exact sign test that `more` is correct more often than `less`.

    Of n images that exactly one of both classifies correctly, `more` has a: p = 2^-n sum_{k >= a} C(n, k).
    """
    wins, tosses = int((more & ~less).sum()), int((more ^ less).sum())
    return binomial_tail(wins, tosses)
