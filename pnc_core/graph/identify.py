"""Find the architecture of a file of weights by the names and shapes of its tensors.

Each candidate is built on the meta device. Names decide before order, because networks with equal tensors can compute
different logits.

References:
    Own choice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pnc_core.config import NetworkSpec
from pnc_core.graph.candidates import (
    Candidate,
    Facts,
    Options,
    built_in,
    by_repository,
    network_shapes,
    shapes_of,
    timm,
    torchvision,
)
from pnc_core.networks.classes import BY_NAME
from pnc_core.networks.matching import Shapes, by_names, by_order, by_shapes, likeness
from pnc_core.networks.published import PUBLISHED, Published, silent

How = Literal["names", "order", "shapes"]
"""All names are the architecture's or a repository's; shapes are equal in equal order; shapes are equal."""
_SUREST: tuple[How, ...] = ("names", "order", "shapes")
NEAREST = 3
CIFAR_SIZE = (32, 32)
"""Height and width of CIFAR's images."""
_LIKE = 0.25
"""Least share of equal shapes of a nearest architecture."""


@dataclass(frozen=True)
class Fit:
    """An architecture that takes the file's tensors."""

    architecture: str
    options: Options
    how: How
    key_map: dict[str, str]
    """The architecture's name of each tensor by its name in the file."""
    published: Published | None = None
    """The repository whose names the file has."""

    @property
    def silent(self) -> list[str]:
        """Options with which the tensors fit as well, while the logits are others."""
        return silent(self.architecture, self.options)

    @property
    def renamed(self) -> dict[str, str]:
        """The part of the key map that changes names."""
        return {old: new for old, new in self.key_map.items() if old != new}

    def fields(self, facts: Facts) -> dict[str, Any]:
        """Fields of a specification that the architecture and its repository tell, as JSON has them.

        Args:
            facts: Of the file.
        """
        known: dict[str, Any] = {"architecture": self.architecture, "options": self.options}
        if self.architecture.startswith("cifar/"):
            known["input_size"] = [facts.channels, *CIFAR_SIZE]
        pixels = self.published.pixels.get(facts.classes) if self.published else None
        if pixels is not None:
            known |= {
                "mean": list(pixels[0]),
                "std": list(pixels[1]),
                "classes": list(BY_NAME[f"cifar{facts.classes}"]),
            }
        return known


@dataclass(frozen=True)
class Near:
    """An architecture that does not take the tensors, and the differences."""

    architecture: str
    options: Options
    likeness: float
    """Share of tensors whose shape the other side has as well, 0..1."""
    missing: tuple[str, ...]
    """Names that the architecture expects and the file lacks."""
    unexpected: tuple[str, ...]
    """Names that the file has and the architecture lacks."""
    other: tuple[str, ...]
    """Names with another shape, with both shapes."""


@dataclass(frozen=True)
class Identified:
    """Architectures for a file's tensors."""

    facts: Facts
    fits: tuple[Fit, ...]
    """Surest first."""
    near: tuple[Near, ...]
    """Without fits: the most alike architectures."""

    @property
    def chosen(self) -> Fit | None:
        """The only fit of the surest kind; None where there is none, or several compute different logits."""
        for how in _SUREST:
            found = [fit for fit in self.fits if fit.how == how]
            if found:
                return found[0] if len(found) == 1 else None
        return None


def identify(
    shapes: Shapes, *, ordered: bool, input_size: tuple[int, int, int] | None = None, noted: str | None = None
) -> Identified:
    """Find the architectures that take a file's tensors, or are most alike.

    Architectures that the names alone tell are compared first, then built-in ones, then torchvision's, then timm's
    if it is installed. The first of these groups that has a fit ends the search.

    Args:
        shapes: Shapes by name.
        ordered: Whether the names come in the network's order.
        input_size: Channels, height and width of an image, for networks that are built for one size.
        noted: A name of an architecture that the file holds beside its tensors.
    """
    facts, seen = Facts(shapes, ordered), dict[object, tuple[Candidate, Shapes]]()
    for group in (by_repository(facts), built_in(facts), torchvision(facts), timm(facts, noted)):
        fits: list[Fit] = []
        for candidate in group:
            own = network_shapes(candidate, facts, input_size)
            if own is not None:
                seen.setdefault(candidate.key, (candidate, own))
                fits += _fits(candidate, own, facts)
        if fits:
            return Identified(facts, _distinct(fits, facts), ())
    return Identified(facts, (), tuple(_nearest(seen.values(), facts)))


def compare(spec: NetworkSpec, shapes: Shapes, *, ordered: bool) -> Fit | Near:
    """How a file's tensors fit one network.

    Raises:
        NetworkError: the network cannot be built.
    """
    facts = Facts(shapes, ordered)
    own = shapes_of(spec)
    alike = [p for p in PUBLISHED if spec.architecture in p.architectures]
    candidates = [Candidate(spec.architecture, spec.options, published) for published in (None, *alike)]
    fits = [fit for candidate in candidates for fit in _fits(candidate, own, facts)]
    return _distinct(fits, facts)[0] if fits else _near(candidates[0], own, facts)


def _fits(candidate: Candidate, own: Shapes, facts: Facts) -> Iterator[Fit]:
    if key_map := by_names(facts.shapes, own, candidate.name):
        # The library's own names are those of a repository, which may have other options: no proof.
        how: How = "names" if candidate.published or not candidate.architecture.startswith("cifar/") else "order"
        yield Fit(candidate.architecture, candidate.options, how, key_map, candidate.published)
    elif facts.ordered and (key_map := by_order(facts.shapes, own)):
        yield Fit(candidate.architecture, candidate.options, "order", key_map)
    elif not facts.ordered and (key_map := by_shapes(facts.shapes, own)):
        yield Fit(candidate.architecture, candidate.options, "shapes", key_map)


def _distinct(fits: list[Fit], facts: Facts) -> tuple[Fit, ...]:
    """Surest first; one for each network, with the repository that publishes it for so many classes if there is one."""
    fits.sort(key=lambda fit: (_SUREST.index(fit.how), _unpublished(fit.published, facts.classes)))
    found: dict[object, Fit] = {}
    for fit in fits:
        found.setdefault(Candidate(fit.architecture, fit.options).key, fit)
    return tuple(found.values())


def _unpublished(published: Published | None, classes: int) -> int:
    return 2 if published is None else int(classes not in published.pixels)


def _nearest(seen: Iterable[tuple[Candidate, Shapes]], facts: Facts) -> Iterator[Near]:
    ranked = sorted(seen, key=lambda pair: -likeness(facts.shapes, pair[1]))
    for candidate, own in ranked[:NEAREST]:
        near = _near(candidate, own, facts)
        if near.likeness >= _LIKE:
            yield near


def _near(candidate: Candidate, own: Shapes, facts: Facts) -> Near:
    names = {candidate.name(name): shape for name, shape in own.items()}
    both = [name for name in names if name in facts.shapes and names[name] != facts.shapes[name]]
    return Near(
        candidate.architecture, candidate.options, likeness(facts.shapes, own),
        tuple(name for name in names if name not in facts.shapes),
        tuple(name for name in facts.shapes if name not in names),
        tuple(f"{name}: expected {list(names[name])}, got {list(facts.shapes[name])}" for name in both),
    )  # fmt: skip
