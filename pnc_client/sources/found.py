"""One source of images: its classes, its images one by one, and the files and rows that it leaves out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pnc_core.formats import SUFFIXES, refused

MAX_FILE = 256 * 2**20
"""Bytes of one image file. Own choice: the largest image that is read has 64 million pixels."""
SYSTEM = "a hidden file, or one of an operating system"
NO_LABEL = "it has no label"


class SourceError(ValueError):
    """Images cannot be read from their source; the message says the expected and the found layout."""


class NoColumn(SourceError):
    """A table has no column of image files."""


@dataclass(frozen=True)
class Item:
    """One image."""

    name: str
    """Path below the source, or number of the row; for messages."""
    label: str | None
    """Name of its class; none: the source has no labels."""
    raw: bytes
    """The file's bytes, as they are."""


@dataclass(frozen=True)
class Skipped:
    """One file or row that is left out."""

    name: str
    reason: str
    harmless: bool = False
    """Whether it is no image, such as a README, so that no image is lost without it."""


@dataclass
class Images:
    """All images of a source. Iterate once; `skipped` is complete after that.

    Args:
        classes: Names of the classes in the order of their labels; none: the images have no labels.
        items: The images.
        skipped: Files and rows that are left out; grows while the images are read.
        notes: Decisions that the user should see, such as the columns that were taken.
    """

    classes: list[str] | None
    items: Iterable[Item]
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Item]:
        for item in self.items:
            reason = _reason(item.raw)
            if reason is None:
                yield item
            else:
                self.skipped.append(Skipped(item.name, reason))

    def skip(self, name: str, reason: str) -> None:
        """Note a row that is left out."""
        self.skipped.append(Skipped(name, reason))

    @property
    def lost(self) -> list[Skipped]:
        """Skipped files that may be images."""
        return [one for one in self.skipped if not one.harmless]


def _reason(raw: bytes) -> str | None:
    if len(raw) > MAX_FILE:
        return f"it has {len(raw):,} bytes, more than {MAX_FILE:,}"
    kind = refused(raw)
    return None if kind is None else f"it is {kind}"


def classes_of(labels: Iterable[str]) -> list[str]:
    """Distinct names in order; whole numbers come in the order of their values."""
    found = set(labels)
    return sorted(found, key=int) if all(map(_is_number, found)) else sorted(found)


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return suffix_of(name) in SUFFIXES


def suffix_of(name: str) -> str:
    """The ending of a file's name in lower case, with its dot; empty without one."""
    base, dot, end = name.rpartition("/")[2].rpartition(".")
    return f".{end.lower()}" if dot and base else ""


def is_system_file(name: str) -> bool:
    """Whether an operating system made the file, such as `._cat.png` or `__MACOSX`; or it is hidden."""
    parts = name.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].lower() in _SYSTEM_NAMES


def choose(things: str, found: Sequence[str], wanted: str | None, option: str) -> str | None:
    """The wanted one of several; the only one without a wish; none: `all` is wanted, or there is nothing to choose.

    Raises:
        SourceError: there are several and none is wanted, or the wanted one does not exist.
    """
    if wanted == "all" or (wanted is None and not found):
        return None
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted in found:
        return wanted
    names = ", ".join(map(repr, found)) or f"no {things}"
    got = "none was chosen" if wanted is None else f"got {wanted!r}"
    raise SourceError(f"expected one of the {things} {names}, {got}; give `{option} NAME`, or `{option} all`")


_SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})
_is_number: Callable[[str], bool] = str.isdecimal
