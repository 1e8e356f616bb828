"""Check a network on labelled images, and find the mistake in its registration where the accuracy is low.

A registration can fit all tensors and compute other logits than in training: other padding, other mean, other order of
the classes. Only images tell. Variants of the description compete on half of a sample. The winner is measured on images
outside this half, so that its accuracy is not the one that chose it.

References:
    Own choice.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.analysis import orders
from pnc_core.analysis.evaluation import multiply_accumulates, predict
from pnc_core.analysis.orders import Columns
from pnc_core.analysis.score import Score
from pnc_core.analysis.variants import Variant, fields, pixels, sizes, variants
from pnc_core.config import NetworkSpec
from pnc_core.errors import DataError, PncError, is_out_of_memory
from pnc_core.graph.architectures import build_network, load_weights
from pnc_core.images import ImageSet

MIN_GAIN = 0.05
"""Gain in accuracy from which a variant counts as the cause. Own choice: less may be a matter of training."""
IMAGES, LEAST_IMAGES = 500, 50
"""Images of a sample, of which half choose; with less than the second number nothing is tried."""
PER_CLASS, MOST_IMAGES = 20, 2000
"""More images are taken for more classes, so that the order of the classes can be read."""
CONFIRMING, CONFIRMING_SHARE = 1000, 0.1
"""Largest number of images that measure the chosen variant, and the share of `max_macs` that they may cost (at least
as many as the other half of the sample)."""
GLANCE = 100
"""Images of the first half on which a variant must be better than the registration to be tried on the others."""
SLACK = 0.02
"""Variants whose accuracies differ by less are equally good: fewer changes win, then the lower cross-entropy."""
ROUNDS = 3
"""Mistakes that are looked for one on top of the other."""
_ANY_ORDER = "another order of the classes"
"""Counts as two changes: an order with so much freedom must not win over a plain mistake that helps as much."""
SIZES_BELOW = 0.5
"""Other input sizes are tried where the accuracy is below this and no other variant helps: they cost most."""


@dataclass(frozen=True)
class Cause:
    """A likely mistake in a registration, measured on images that did not choose it."""

    title: str
    spec: NetworkSpec
    """The description without the mistake."""
    changes: dict[str, Any]
    """The fields that it changes, as JSON holds them."""
    before: Score
    """As registered."""
    after: Score
    """With the changes, on the same images."""


@dataclass(frozen=True)
class Check:
    """How well a network does on labelled images."""

    score: Score
    """On all images."""
    chance: float
    """Accuracy of guessing: 1 / number of classes."""
    near_chance: bool
    cause: Cause | None = None
    tried: int = 0
    """Number of variants that were tried; 0: the accuracy leaves no room, or there are too few images."""

    @property
    def is_suspect(self) -> bool:
        """Whether something in the registration is probably wrong."""
        return self.near_chance or self.cause is not None


@dataclass(frozen=True)
class _Tried:
    """A variant with an order of the classes, on the choosing half."""

    title: str
    spec: NetworkSpec
    columns: Columns | None
    changes: int
    right: int
    at_a_glance: int
    """Of the first `GLANCE` images."""
    loss: float


def check(network: nn.Module, spec: NetworkSpec, images: ImageSet, *, max_macs: float | None = None) -> Check:
    """Measure a network, and look for a mistake in its description.

    Args:
        network: The network in eval mode; not changed.
        spec: Its description as registered.
        images: Labelled images; classes that the network lacks are ignored.
        max_macs: Limit of multiply-accumulates for the search; None: no limit.

    Raises:
        DataError: no image shows a class of the network.
    """
    used = images.only(spec.classes)
    if not len(used):
        raise DataError(
            f"images: expected some of the network's classes {list(spec.classes)[:5]}, got only images of "
            f"{list(images.classes)[:5]}; give the classes the same names"
        )
    logits = predict(network, spec, used.views)
    score = Score(_counted(logits, used.labels), len(used))
    classes = len(spec.classes)
    near = score.is_near_chance(classes)
    if 1 - score.share < MIN_GAIN:
        return Check(score, 1 / classes, near)
    search = _Search(network, spec, used, images.classes, score.share < SIZES_BELOW, max_macs)
    return Check(score, 1 / classes, near, search.cause(), search.tried)


@dataclass(frozen=True)
class Scaling:
    """Mean, standard deviation, channel order and value range that fit a network best."""

    title: str
    spec: NetworkSpec
    score: Score
    """On images that did not choose it."""
    alternatives: tuple[str, ...]
    """Titles of others that the choosing images do not tell apart by accuracy."""


def find_scaling(network: nn.Module, spec: NetworkSpec, images: ImageSet) -> Scaling:
    """Find the scaling of pixels for a network of which it is not known.

    Accuracies within 2 % are equal; of these the fewest changes of channel order and value range win, then the lowest
    cross-entropy. Half of a sample of the images chooses, images outside this half measure.

    Args:
        network: The network in eval mode; not changed.
        spec: Its description; mean and standard deviation are the first candidate.
        images: Labelled images of the network's classes.

    Raises:
        DataError: less than 50 images show classes of the network.
    """
    used = images.only(spec.classes)
    if len(used) < LEAST_IMAGES:
        raise DataError(
            f"images: expected at least {LEAST_IMAGES} of the network's classes {list(spec.classes)[:5]}, got "
            f"{len(used)}; add images, or give mean and std"
        )
    first, second = _apart(used, min(len(used), IMAGES), CONFIRMING)
    tries = []
    for variant in [Variant("mean and std none", spec, 1), *pixels(spec, used.images)]:
        logits = predict(network, variant.spec, first.views)
        right, loss = _counted(logits, first.labels), float(F.cross_entropy(logits.float(), first.labels))
        tries.append(_Tried(variant.title, variant.spec, None, variant.changes, right, 0, loss))
    chosen = _chosen(tries, 0)
    assert chosen is not None  # there is at least one
    score = Score(_counted(predict(network, chosen.spec, second.views), second.labels), len(second))
    low = Score(chosen.right, len(first)).interval[0] * len(first)
    equals = [one.title for one in sorted(tries, key=lambda one: -one.right) if one.right >= low]
    return Scaling(chosen.title, chosen.spec, score, tuple(title for title in equals if title != chosen.title))


def _counted(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(1) == labels).sum())


def measured(network: nn.Module, spec: NetworkSpec, images: ImageSet, most: int) -> Score | None:
    """Accuracy on a balanced sample of the images that show the network's classes; None: there are none."""
    used = _balanced(images.only(spec.classes), most)
    if not len(used):
        return None
    return Score(_counted(predict(network, spec, used.views), used.labels), len(used))


class _Search:
    """Tries variants on one half of a sample, and measures the best one on images that are not in this half."""

    def __init__(
        self, network: nn.Module, spec: NetworkSpec, images: ImageSet, order: tuple[str, ...], low: bool,
        max_macs: float | None,
    ) -> None:  # fmt: skip
        self._network, self._spec, self._order = network, spec, order
        self._all, self.tried = images.images, 0
        sample = min(len(images), MOST_IMAGES, max(IMAGES, PER_CLASS * len(spec.classes)))
        self._sizes, affordable, confirming = low, sample, CONFIRMING
        if max_macs is not None:
            macs = max(1, multiply_accumulates(network, spec))
            confirming = int(min(confirming, CONFIRMING_SHARE * max_macs // (2 * macs)))
            affordable = self._affordable(macs, max_macs)
            if self._sizes and affordable < LEAST_IMAGES:
                self._sizes = False
                affordable = self._affordable(macs, max_macs)
        sample = min(sample, affordable)
        self._is_possible = sample >= LEAST_IMAGES
        if self._is_possible:
            self._first, self._second = _apart(images, sample, confirming)
            turns = _in_turns(self._first.labels, torch.arange(len(self._first)))
            self._glance, self._rest = turns[:GLANCE].sort().values, turns[GLANCE:].sort().values

    def cause(self) -> Cause | None:
        """The mistake, if one was found and confirmed."""
        if not self._is_possible:
            return None
        found = self._best()
        if found is None:
            return None
        network = self._built(found.spec)
        assert network is not None  # it was built to be chosen
        plain = predict(self._network, self._spec, self._second.views)
        logits = predict(network, found.spec, self._second.views)
        labels, columns = self._second.labels, found.columns
        if columns is not None:
            named = {c for _, c in orders.given_orders(self._spec.classes, self._order)}
            if columns not in named and orders.shown_order(logits, labels) != columns:
                return None  # the halves show two orders
            logits = logits[:, list(columns)]
            if not orders.is_plausible(logits, labels):
                return None
        before, after = (Score(_counted(x, labels), len(labels)) for x in (plain, logits))
        if not after.is_above(before, MIN_GAIN) or not after.is_off_chance(len(self._spec.classes)):
            return None
        spec = found.spec
        if columns is not None:
            spec = replace(spec, classes=orders.names_in_order(spec.classes, columns))
        return Cause(found.title, spec, fields(self._spec, spec), before, after)

    def _best(self) -> _Tried | None:
        """The best variant, after up to `ROUNDS` rounds of changes on top of one another."""
        current, best = Variant("", self._spec, 0), None
        columns: Columns | None = None
        for _ in range(ROUNDS):
            same, *start = self._tries(current, columns, -1)
            chosen = self._round(current, columns, same, start)
            if chosen is None:
                break
            title = f"{best.title}, {chosen.title}" if best else chosen.title
            best = replace(chosen, title=title)
            current, columns = Variant("", best.spec, 0), best.columns
            if best.right > (1 - MIN_GAIN) * len(self._first):
                break
        return best

    def _round(self, current: Variant, columns: Columns | None, same: _Tried, start: list[_Tried]) -> _Tried | None:
        """The best change on top of the current description; None: none gains enough."""
        least = same.right + max(1, round(MIN_GAIN * len(self._first)))
        glance = same.at_a_glance
        tries = [one for v in variants(current.spec, self._all) for one in self._tries(v, columns, glance)]
        chosen = _chosen([*start, *tries], least)
        if chosen is None and self._sizes:
            chosen = _chosen([one for v in sizes(current.spec) for one in self._tries(v, columns, glance)], least)
        return chosen

    def _tries(self, variant: Variant, columns: Columns | None, least: int) -> list[_Tried]:
        """A variant with the current order of classes, and with others if there is no other order yet.

        Args:
            variant: The variant.
            columns: Current order of classes.
            least: A variant that classifies no more of the first `GLANCE` images correctly is dropped.
        """
        network = self._built(variant.spec)
        if network is None:
            return []
        try:
            glance, rest = (self._first.take(part) for part in (self._glance, self._rest))
            logits = predict(network, variant.spec, glance.views)
            self.tried += 1
            if max(one.right for one in self._orders(variant, columns, logits, glance.labels)) <= least:
                return []
            if len(rest):
                logits = torch.cat([logits, predict(network, variant.spec, rest.views)])
        except (PncError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            return []
        return self._orders(variant, columns, logits, torch.cat([glance.labels, rest.labels]))

    def _orders(self, variant: Variant, columns: Columns | None, logits: Tensor, labels: Tensor) -> list[_Tried]:
        tries = [self._try(variant, columns, "", logits, labels)]
        if columns is None:
            names = self._spec.classes
            for title, order in orders.given_orders(names, self._order):
                if orders.is_plausible(logits[:, list(order)], labels):
                    tries.append(self._try(variant, order, title, logits, labels))
            shown = orders.shown_order(logits, labels)
            if shown not in (None, tuple(range(len(names))), *(one.columns for one in tries)):
                tries.append(self._try(variant, shown, _ANY_ORDER, logits, labels))
        return tries

    def _try(self, variant: Variant, columns: Columns | None, title: str, logits: Tensor, labels: Tensor) -> _Tried:
        ordered = logits if columns is None else logits[:, list(columns)]
        right = ordered.argmax(1) == labels
        return _Tried(
            ", ".join(part for part in (variant.title, title) if part),
            variant.spec,
            columns,
            variant.changes + bool(title) + (title == _ANY_ORDER),
            int(right.sum()),
            int(right[: len(self._glance)].sum()),
            float(F.cross_entropy(ordered.float(), labels)),
        )

    def _built(self, spec: NetworkSpec) -> nn.Module | None:
        """The network of a description with the same tensors; None: the tensors do not fit it."""
        if (spec.options, spec.input_size) == (self._spec.options, self._spec.input_size):
            return self._network
        device = next((p.device for p in self._network.parameters()), torch.device("cpu"))
        try:
            built = build_network(spec, device=str(device))
            return load_weights(built, dict(self._network.state_dict()))
        except PncError:
            return None

    def _affordable(self, macs: int, limit: float) -> int:
        """Images of both halves whose search costs at most `limit` multiply-accumulates, in the longest case."""
        height, width = self._spec.input_size[1:]
        tried = [*variants(self._spec, self._all), *(sizes(self._spec) if self._sizes else ())]
        units = 1 + sum(variant.cost / (height * width) for variant in tried) * ROUNDS
        return int(2 * limit // max(1.0, macs * units))


def _chosen(tries: list[_Tried], least: int) -> _Tried | None:
    """Among those that are as good as the best: the fewest changes, then the lowest loss; None: none has `least`."""
    most = max((one.right for one in tries), default=0)
    if most < least:
        return None
    slack = max(1, round(SLACK * most))
    return min((one for one in tries if one.right >= most - slack), key=lambda one: (one.changes, one.loss))


def _balanced(images: ImageSet, most: int) -> ImageSet:
    """At most `most` images, the same number of each class as far as there are enough; always the same ones."""
    if len(images) <= most:
        return images
    return images.take(_in_turns(images.labels, _shuffled(len(images), 0))[:most].sort().values)


def _apart(images: ImageSet, sample: int, confirming: int) -> tuple[ImageSet, ImageSet]:
    """Half of a balanced sample, and up to `confirming` balanced images of the rest, at least the other half."""
    order = _in_turns(images.labels, _shuffled(len(images), 1))
    halves = _turns(images.labels[order[:sample]]) % 2
    first, second = order[:sample][halves == 0], torch.cat([order[:sample][halves == 1], order[sample:]])
    most = max(confirming, sample - len(first))
    return images.take(first.sort().values), images.take(second[:most].sort().values)


def _shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _in_turns(labels: Tensor, order: Tensor) -> Tensor:
    """An order of images in which the classes take turns, as far as each has images."""
    return order[_turns(labels[order]).argsort(stable=True)]


def _turns(labels: Tensor) -> Tensor:
    """How many earlier images have the same label, by image."""
    turns = torch.empty_like(labels)
    for label in labels.unique():
        places = torch.nonzero(labels == label).flatten()
        turns[places] = torch.arange(len(places))
    return turns
