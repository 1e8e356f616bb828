"""Names that resemble a misspelt name.

References:
    Own choice: `difflib` of the standard library. Case, spaces and punctuation do not count.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

MOST = 3
"""Names that a message shows."""
MAX_LENGTH = 128
"""A longer text resembles no name; comparing it would take long."""
LIKENESS = 0.7
"""Least ratio of `difflib` between two similar names."""
_BETWEEN = re.compile(r"[\W_]+")


def plain(name: str) -> str:
    """The name without upper case, spaces and punctuation."""
    return _BETWEEN.sub("", name.casefold())


def alike(text: str, spellings: Iterable[str], most: int = MOST) -> list[str]:
    """The plain spellings that resemble a text, the most similar one first."""
    return [] if len(text) > MAX_LENGTH else get_close_matches(plain(text), spellings, most, LIKENESS)


def similar(text: str, names: Iterable[str]) -> list[str]:
    """At most three names that resemble a text, the most similar name first."""
    spellings: dict[str, str] = {}
    for name in names:
        spellings.setdefault(plain(name), name)
    return [spellings[spelling] for spelling in alike(text, spellings)]


def listed(names: Sequence[str], last: str) -> str:
    """Names in quotes: `'a', 'b' or 'c'`."""
    *first, final = map(repr, names)
    return f"{', '.join(first)} {last} {final}" if first else final
