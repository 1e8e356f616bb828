"""Names of classes in one form, and names that resemble a misspelt name.

References:
    Own choice: `difflib` of the standard library. Case, spaces and punctuation do not count.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

MOST = 3
"""Names that a message shows."""
MAX_LENGTH = 128
"""A longer text resembles no name; comparing it would take long."""
LIKENESS = 0.7
"""Least ratio of `difflib` between two similar names."""
_BETWEEN = re.compile(r"[\W_]+")
JOINERS = "\u200c\u200d"
"""Invisible characters inside of words and of joined emoji, which `str.isprintable` refuses."""


def normal_name(name: str) -> str:
    """A name in the one form that is stored and compared: Unicode's NFC, with plain spaces.

    Systems write `é` as one character or as two (NFD), and a space that does not break a line looks like any other.
    """
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in unicodedata.normalize("NFC", name))


def is_class_name(name: object) -> bool:
    """Whether a value is the name of a class: 1 to `MAX_LENGTH` characters, printable or `JOINERS` between others."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_LENGTH or {name[0], name[-1]} & {*JOINERS}:
        return False
    return name.translate(dict.fromkeys(map(ord, JOINERS))).isprintable()


def plain(name: str) -> str:
    """The name without upper case, spaces and punctuation."""
    return _BETWEEN.sub("", name.casefold())


def alike(text: str, spellings: Iterable[str], most: int = MOST) -> list[str]:
    """The plain spellings that resemble a text, the most similar one first."""
    return [] if len(text) > MAX_LENGTH else get_close_matches(plain(text), spellings, most, LIKENESS)


def listed(names: Sequence[str], last: str) -> str:
    """Names in quotes: `'a', 'b' or 'c'`."""
    *first, final = map(repr, names)
    return f"{', '.join(first)} {last} {final}" if first else final


def did_you_mean(name: str, architectures: Iterable[str]) -> str:
    """`; did you mean 'torchvision/resnet18'?` for an unknown architecture; empty if no name is similar.

    Names are compared by their last parts. An equal last part excludes similar ones, and the same family comes first.

    Args:
        name: The unknown name, such as `torchvision/resnet81`.
        architectures: All known names.
    """
    family, _, last = name.rpartition("/")
    by_last: dict[str, list[str]] = {}
    for known in architectures:
        by_last.setdefault(plain(known.rpartition("/")[2]), []).append(known)
    spellings = [plain(last)] if plain(last) in by_last else alike(last, by_last)
    near = [known for spelling in spellings for known in by_last[spelling]]
    near.sort(key=lambda known: known.rpartition("/")[0] != family)
    return f"; did you mean {listed(near[:MOST], 'or')}?" if near else ""
