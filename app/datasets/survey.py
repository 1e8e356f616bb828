"""From facts about single images to facts about a dataset: duplicates, constant images, sizes and oddities.

References:
    Perceptual hash: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2.1:
    signs of the lowest frequencies of a cosine transform around their median. A candidate pair is confirmed by the
    small grey copies themselves, because small drawings such as digits have similar hashes. Limits are own choice.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.datasets.looking import BAD, CONSTANT, SIDE, Facts

MOST_NEAR = 500_000
"""Distinct images among which near duplicates are searched; further ones are only compared exactly."""
HASH_BITS, BANDS = 64, 5
NEAR_BITS = 4
"""Most different bits of two near duplicates: of five bands one is then equal, and only such pairs are compared."""
NEAR_SHARE = 0.004
"""Largest mean squared difference of two near duplicates' small copies, as a share of the sum of their variances. JPEG
of quality 75 and resizing make 0.00001 to 0.002; the most similar of 20,000 different digits of MNIST have 0.0066."""
BUCKET = 2000
"""Images with an equal band that are all compared with each other; of more, each with as many neighbours."""
EXAMPLES = 10
CHUNK = 32_768
"""Images whose copies are held as fractions at once."""
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Survey:
    """Facts about all images of a dataset."""

    good: int
    """Images that can be decoded."""
    exact: int
    """Images whose pixels equal those of an earlier image."""
    near: int
    """Distinct images that hardly differ from an earlier image."""
    across: int
    """Groups of equal or nearly equal images with different labels."""
    examples: list[tuple[int, int]]
    """Rows of some equal or nearly equal pairs."""
    constant: int
    """Images of one colour."""
    distinct: dict[int, int]
    """Different images by label; nearly equal images count once."""
    sizes: dict[str, int]
    """Smallest, median and largest height, width and shorter side, such as `shorter_median`."""


def survey(facts: Facts, labels: Indices) -> Survey:
    """Find duplicates and sizes.

    Args:
        facts: Of type `FACTS`, one element a row of the file, in order.
        labels: int64 (rows,), -1 where a row has no label.
    """
    chosen = np.flatnonzero(facts["state"] != BAD)
    seen, tags = facts[chosen], labels[chosen]
    _, first, group = np.unique(seen["digest"], axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    shown = np.flatnonzero(seen["state"][first] != CONSTANT)[:MOST_NEAR]
    pairs = near_pairs(seen["small"][first[shown]])
    joined = _joined(len(first), shown[pairs])
    whole = joined[group]
    twice = np.flatnonzero(first[group] != np.arange(len(group)))
    examples = [(int(seen["row"][first[group[place]]]), int(seen["row"][place])) for place in twice[:EXAMPLES]]
    close = np.unique(np.sort(seen["row"][first[shown[pairs]]].reshape(-1, 2), axis=1), axis=0)
    examples += [(int(one), int(other)) for one, other in close[: max(0, EXAMPLES - len(examples))]]
    return Survey(
        good=len(chosen),
        exact=len(group) - len(first),
        near=len(first) - len(np.unique(joined)),
        across=_across(whole, tags),
        examples=examples,
        constant=int((seen["state"] == CONSTANT).sum()),
        distinct=_distinct(whole, tags),
        sizes=_sizes(seen),
    )


def near_pairs(small: NDArray[np.uint8]) -> Indices:
    """Pairs of images that hardly differ, int64 (pairs, 2).

    Args:
        small: Grey copies, (images, SIDE, SIDE).
    """
    found = [np.empty((0, 2), np.int64)]
    hashes = perceptual_hashes(small)
    flat = small.reshape(len(small), SIDE * SIDE)
    spread = np.concatenate([np.empty(0), *(flat[at : at + CHUNK].var(1) for at in range(0, len(flat), CHUNK))])
    width = math.ceil(HASH_BITS / BANDS)
    for band in range(BANDS):
        keys = (hashes >> np.uint64(band * width)) & np.uint64((1 << width) - 1)
        for members in _buckets(keys):
            for left, right in _candidates(members, hashes):
                apart = (flat[left].astype(np.int32) - flat[right]) ** 2
                close = apart.mean(1) <= NEAR_SHARE * (spread[left] + spread[right])
                found.append(np.stack([left[close], right[close]], 1))
    return np.unique(np.concatenate(found), axis=0)


def perceptual_hashes(small: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """64 bits an image: whether each of the 8 x 8 lowest frequencies but the mean is above their median.

    Args:
        small: Grey copies, (images, SIDE, SIDE).
    """
    places = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    waves = np.cos(np.arange(8)[:, None] * places).astype(np.float32)
    hashes = np.zeros(len(small), np.uint64)
    for begin in range(0, len(small), CHUNK):
        part = small[begin : begin + CHUNK].astype(np.float32)
        low = (waves @ part @ waves.T).reshape(len(part), 64)
        bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
        bits[:, 0] = False
        weights = np.uint64(1) << np.arange(64, dtype=np.uint64)
        hashes[begin : begin + CHUNK] = (bits * weights).sum(1, dtype=np.uint64)
    return hashes


def _buckets(keys: NDArray[np.uint64]) -> Iterator[Indices]:
    """Numbers of the images with equal keys, in rising order; keys of one image are left out."""
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    yield from (part for part in np.split(order, ends) if len(part) > 1)


def _candidates(members: Indices, hashes: NDArray[np.uint64]) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of a bucket whose hashes differ in few bits."""
    by_hash = members[np.argsort(hashes[members], kind="stable")] if len(members) > BUCKET else members
    for begin in range(0, len(by_hash), 256):
        left = by_hash[begin : begin + 256]
        right = by_hash[begin : begin + 256 + BUCKET]
        differ = np.bitwise_count(hashes[left][:, None] ^ hashes[right][None])
        rows, columns = np.nonzero((differ <= NEAR_BITS) & (np.arange(len(right)) > np.arange(len(left))[:, None]))
        yield np.minimum(left[rows], right[columns]), np.maximum(left[rows], right[columns])


def _joined(count: int, pairs: Indices) -> Indices:
    """The smallest member of each image's group, int64 (count,): pairs that share an image are one group."""
    root = np.arange(count)

    def find(item: int) -> int:
        while root[item] != item:
            root[item] = root[root[item]]
            item = int(root[item])
        return item

    for one, other in pairs.tolist():
        low, high = sorted((find(one), find(other)))
        root[high] = low
    return np.array([find(item) for item in range(count)], np.int64)


def _across(groups: Indices, labels: Indices) -> int:
    """Groups with images of several labels."""
    known = labels >= 0
    pairs = np.unique(np.stack([groups[known], labels[known]], 1), axis=0)
    _, counts = np.unique(pairs[:, 0], return_counts=True)
    return int((counts > 1).sum())


def _distinct(groups: Indices, labels: Indices) -> dict[int, int]:
    pairs = np.unique(np.stack([labels, groups], 1), axis=0)
    found, counts = np.unique(pairs[:, 0], return_counts=True)
    return dict(zip(map(int, found), map(int, counts), strict=True))


def _sizes(seen: Facts) -> dict[str, int]:
    if not len(seen):
        return {}
    measured: dict[str, Any] = {
        "height": seen["height"], "width": seen["width"], "shorter": np.minimum(seen["height"], seen["width"])
    }  # fmt: skip
    ways: Sequence[tuple[str, Any]] = (("smallest", np.min), ("median", np.median), ("largest", np.max))
    return {f"{name}_{way}": int(take(values)) for name, values in measured.items() for way, take in ways}
