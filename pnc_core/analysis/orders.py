"""Orders of a network's classes: given ones that are common mistakes, and the one that images show."""

import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

MIN_EACH = 8
"""Images of each class from which an order is read. Own choice: with fewer the best column of a class is often luck."""
MOSTLY = 0.8
"""Share of classes that have to be the most frequent prediction of their own images. Own choice."""
Columns = tuple[int, ...]
"""The logit of each class, by the registered number of the class."""


def given_orders(classes: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, Columns]]:
    """Common orders that differ from the registered one, with titles.

    Args:
        classes: Classes in the registered order of the logits.
        others: Classes of the images in their own order; classes that the network lacks are left out.
    """
    seen = {tuple(range(len(classes)))}
    listed = [name for name in others if name in set(classes)]
    orders = {
        "classes in the order of their names": sorted(classes),
        "classes in the order of the numbers in their names": sorted(classes, key=_natural),
        "classes in the order of the dataset": listed,
    }
    for title, order in orders.items():
        place = {name: column for column, name in enumerate(order)}
        if len(place) == len(classes):
            columns = tuple(place[name] for name in classes)
            if columns not in seen:
                seen.add(columns)
                yield title, columns


def shown_order(logits: Tensor, labels: Tensor) -> Columns | None:
    """The order that images show: each class has the column that most of its images prefer.

    Args:
        logits: float (N, C).
        labels: int64 (N,), registered numbers of the classes.

    Returns:
        None: a class has less than `MIN_EACH` images, or two classes share a column, or a column prefers another class.

    References:
        Own choice. Only pairs that are best for both sides count, so that no assignment has to be guessed.
    """
    classes = logits.shape[1]
    votes = _votes(logits, labels)
    counts = votes.sum(1)
    if int(counts.min()) < MIN_EACH:
        return None
    shares = votes / counts[:, None]
    columns = shares.argmax(1)
    mutual = torch.equal(shares.argmax(0)[columns], torch.arange(classes))
    return tuple(columns.tolist()) if mutual else None


def is_plausible(logits: Tensor, labels: Tensor) -> bool:
    """Whether most classes are the most frequent prediction of their own images: an order that is right in part only
    fails.

    Args:
        logits: float (N, C), already in the order of the classes.
        labels: int64 (N,).
    """
    votes = _votes(logits, labels)
    shown = votes.sum(1) > 0
    right = votes.argmax(1) == torch.arange(len(votes))
    return float(right[shown].float().mean()) >= MOSTLY


def _votes(logits: Tensor, labels: Tensor) -> Tensor:
    """Images by their class (rows) and by the column of their largest logit: float32 (C, C)."""
    classes = logits.shape[1]
    return torch.zeros(classes, classes).index_put_((labels, logits.argmax(1)), torch.ones(()), accumulate=True)


def names_in_order(classes: Sequence[str], columns: Columns) -> tuple[str, ...]:
    """Class names in the order of the logits, if class `i` has the logit `columns[i]`."""
    by_column = dict(zip(columns, classes, strict=True))
    return tuple(by_column[column] for column in range(len(classes)))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
