"""Data structures for finding channel groups: spaces of channels, and their layout in a tensor."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(eq=False)
class Space:
    """The channels of one tensor dimension. Two spaces whose channels must be removed together are united.

    United spaces form a tree (union-find); only the root's fields count.
    """

    width: int
    block: int = 1
    """Number of neighbouring channels that can only be removed together."""
    producers: list[str] = field(default_factory=list)
    """Modules that make the channels."""
    carriers: list[str] = field(default_factory=list)
    """Modules that pass the channels on one by one."""
    consumers: list[str] = field(default_factory=list)
    """Nodes that read the channels."""
    frozen: bool = False
    """The channels cannot be removed."""
    residual: bool = False
    """An addition has united spaces."""
    output: bool = False
    """The channels are the logits."""
    parent: "Space | None" = None

    def root(self) -> "Space":
        """The root of this space's tree."""
        space = self
        while space.parent is not None:
            space = space.parent
        return space

    def unite(self, other: "Space", *, added: bool) -> None:
        """Unite this root with another root; `added`: the reason is an addition."""
        self.residual |= added or other.residual
        if self is other:
            return
        for name in ("producers", "carriers", "consumers"):
            getattr(self, name).extend(getattr(other, name))
        self.frozen |= other.frozen
        self.block = math.lcm(self.block, other.block)
        other.parent = self

    def part(self, count: int) -> "Space":
        """One of `count` equal parts."""
        names = [*self.producers], [*self.carriers], [*self.consumers]
        return Space(self.width // count, self.block, *names, frozen=self.frozen, residual=self.residual)

    @property
    def prunable(self) -> bool:
        """Can channels be removed? The graph must make and read them, and every node on the way must be known."""
        return bool(self.producers and self.consumers) and not self.frozen and not self.output


@dataclass(frozen=True)
class Run:
    """A space's channels along a tensor's dimension; every channel covers `repeat` neighbouring features."""

    space: Space
    repeat: int = 1

    @property
    def features(self) -> int:
        """Number of features."""
        return self.space.width * self.repeat


@dataclass(frozen=True)
class Flow:
    """A tensor's channels: the runs of spaces that follow each other along dimension `axis`."""

    runs: tuple[Run, ...]
    axis: int

    @property
    def features(self) -> int:
        """Size of the tensor along the dimension."""
        return sum(run.features for run in self.runs)

    @property
    def spaces(self) -> Iterator[Space]:
        """The root spaces, in order."""
        return (run.space.root() for run in self.runs)

    def repeated(self, times: int) -> "Flow":
        """The same flow with every feature repeated `times` times, as after a flatten."""
        return Flow(tuple(Run(run.space, run.repeat * times) for run in self.runs), self.axis)

    def divided(self, whole: Space, parts: list[Space]) -> "Flow":
        """The same channels with `parts` in place of `whole`."""
        runs = ([Run(part, r.repeat) for part in parts] if r.space.root() is whole else [r] for r in self.runs)
        return Flow(tuple(run for several in runs for run in several), self.axis)
