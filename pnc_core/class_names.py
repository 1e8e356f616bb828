"""Names of a network's classes: find a class by name, other name or number, and search all names.

A class is found by, in this order:

1. its name, as the network has it;
2. another name of it: an entry of the network's `class_aliases`, a part of `goldfish, Carassius auratus`, or the
   WordNet id of `n01443537 goldfish`;
3. its number: `#1`, or `1` where no class of the network is called by a number.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

from pnc_core.config import CloneConfig
from pnc_core.errors import AmbiguousClass, ConfigError, UnknownClass
from pnc_core.spelling import MAX_LENGTH, MOST, alike, listed, plain

_WORDNET = re.compile(r"(n\d{8}) (?=\S)")
_NUMBER = re.compile(r"#?[0-9]{1,9}\Z")


@dataclass(frozen=True)
class ClassName:
    """One class of a network."""

    number: int
    """Index of its logit; 0 is the first class."""
    name: str
    """Name in the network's description. Jobs and modules store this name."""
    aliases: tuple[str, ...]
    """Other names that requests may use."""


class ClassNames:
    """The class names of one network.

    Args:
        classes: Names in the order of the logits.
        aliases: Other names by class.
        owner: Name of the network for messages, such as `imagenet@1`.
        where: Advice for a name that resembles no class.
    """

    def __init__(
        self,
        classes: Sequence[str],
        aliases: Mapping[str, Sequence[str]] | None = None,
        owner: str = "the source",
        where: str = "",
    ) -> None:
        self._classes, self._aliases, self._owner, self._where = classes, aliases or {}, owner, where

    def __len__(self) -> int:
        return len(self._classes)

    def __getitem__(self, number: int) -> ClassName:
        name = self._classes[number]
        return ClassName(number, name, other_names(name, self._aliases.get(name, ())))

    def find(self, text: str) -> str:
        """The name of the class that `text` means.

        Args:
            text: Name, other name or number.

        Raises:
            UnknownClass: no class is called so; the message has the most similar names.
            AmbiguousClass: several classes have this other name; the message has their names.
        """
        if text in self._numbers:
            return text
        found = self._others.get(text, [])
        if len(found) == 1:
            return self._classes[found[0]]
        if found:
            names = listed([self._classes[number] for number in found[:MOST]], "and")
            raise AmbiguousClass(
                f"expected the name of one class of {self._owner}, got {text!r}, another name of {names}; use one"
            )
        if _NUMBER.match(text) and (text.startswith("#") or self._are_words):
            return self._numbered(text)
        raise UnknownClass(f"expected a class of {self._owner}, got {text!r:.80}; {self._advice(text)}")

    def search(self, text: str, start: int = 0) -> Iterator[ClassName]:
        """Classes whose names hold every word of `text`, in the order of the logits; upper and lower case are equal.

        `#12` finds the class with this number.

        Args:
            text: Words; empty for all classes.
            start: Number of the first class to look at.
        """
        words = text.casefold().split()
        if len(words) == 1 and words[0].startswith("#") and _NUMBER.match(words[0]):
            number = int(words[0][1:])
            yield from [self[number]] if start <= number < len(self) else []
            return
        for number in range(start, len(self)):
            found = self[number]
            held = "\n".join((found.name, *found.aliases)).casefold()
            if all(word in held for word in words):
                yield found

    def nearest(self, text: str) -> list[str]:
        """At most three names of different classes that resemble `text` or hold its words; the best name first."""
        if len(text) > MAX_LENGTH:
            return []
        first: dict[int, str] = {}
        for spelling in alike(text, self._spellings, 3 * MOST):
            name, number = self._spellings[spelling]
            first.setdefault(number, name)
        held = (found.name for found in islice(self.search(text), MOST))
        return list(first.values())[:MOST] or list(held)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._classes)}

    @cached_property
    def _others(self) -> dict[str, list[int]]:
        """Numbers of the classes by other name."""
        found: dict[str, list[int]] = {}
        for number, name in enumerate(self._classes):
            for other in other_names(name, self._aliases.get(name, ())):
                found.setdefault(other, []).append(number)
        return found

    @cached_property
    def _spellings(self) -> dict[str, tuple[str, int]]:
        """Name and number by the name without case, spaces and punctuation."""
        found: dict[str, tuple[str, int]] = {}
        for name, number in self._numbers.items():
            found.setdefault(plain(name), (name, number))
        for name, numbers in self._others.items():
            found.setdefault(plain(name), (name, numbers[0]))
        return found

    @cached_property
    def _are_words(self) -> bool:
        return not any(name.isdecimal() for name in self._classes)

    def _numbered(self, text: str) -> str:
        number = int(text.removeprefix("#"))
        if number >= len(self):
            last = len(self) - 1
            raise UnknownClass(f"expected a class of {self._owner} from #0 to #{last}, got {text!r}; use one of these")
        return self._classes[number]

    def _advice(self, text: str) -> str:
        near = self.nearest(text)
        if near:
            return f"did you mean {listed(near, 'or')}?"
        if len(self) <= MOST:
            return f"use {listed(self._classes, 'or')}"
        return self._where or f"use one of its {len(self):,} classes"


def other_names(name: str, aliases: Iterable[str] = ()) -> tuple[str, ...]:
    """Other names of a class: the WordNet id in front of its name, the parts of its name, and the names of a table."""
    found: dict[str, None] = {}
    for given in (name, *aliases):
        wordnet = _WORDNET.match(given)
        rest = given[wordnet.end() :] if wordnet else given
        found |= dict.fromkeys((given, *([wordnet[1]] if wordnet else []), rest, *rest.split(", ")))
    return tuple(other for other in found if other and other != name)


def resolved(config: CloneConfig, names: ClassNames) -> CloneConfig:
    """The same job with the names of its classes as the source has them.

    Raises:
        UnknownClass: the source does not have a class.
        AmbiguousClass: several classes have a name.
        ConfigError: two names mean one class.
    """
    found: dict[str, str] = {}
    for text in config.classes:
        name = names.find(text)
        if name in found:
            raise ConfigError(f"classes: {repeated(name, found[name], text)}")
        found[name] = text
    return config if tuple(found) == config.classes else replace(config, classes=tuple(found))


def repeated(name: str, first: str, second: str) -> str:
    """The message for two names of one class."""
    return f"expected each class once, got {first!r} and {second!r}, which both mean {name!r}; leave one out"
