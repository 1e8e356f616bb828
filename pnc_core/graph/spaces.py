"""What the reader of channel groups keeps track of: spaces of channels and how they lie in a tensor."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(eq=False)
class Space:
    """Channels that some layer makes, or that came in; spaces that must agree are united."""

    width: int
    block: int = 1
    """So many neighbouring channels live and die together."""
    producers: list[str] = field(default_factory=list)
    carriers: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    """Names of nodes."""
    frozen: bool = False
    residual: bool = False
    output: bool = False
    parent: "Space | None" = None

    def root(self) -> "Space":
        """The space that this one was united into."""
        space = self
        while space.parent is not None:
            space = space.parent
        return space

    def unite(self, other: "Space", *, added: bool) -> None:
        """Two roots become one; `added`: by an addition."""
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
        """Is it made here, read here and understood everywhere?"""
        return bool(self.producers and self.consumers) and not self.frozen and not self.output


@dataclass(frozen=True)
class Run:
    """A space's channels in a tensor, each as `repeat` neighbouring features."""

    space: Space
    repeat: int = 1

    @property
    def features(self) -> int:
        """How many features it covers."""
        return self.space.width * self.repeat


@dataclass(frozen=True)
class Flow:
    """A tensor's channels: which spaces follow each other along which dimension."""

    runs: tuple[Run, ...]
    axis: int

    @property
    def features(self) -> int:
        """The size of the tensor along the dimension."""
        return sum(run.features for run in self.runs)

    @property
    def spaces(self) -> Iterator[Space]:
        """The spaces, in order."""
        return (run.space.root() for run in self.runs)

    def repeated(self, times: int) -> "Flow":
        """Every feature `times` times, as after a flatten."""
        return Flow(tuple(Run(run.space, run.repeat * times) for run in self.runs), self.axis)

    def divided(self, whole: Space, parts: list[Space]) -> "Flow":
        """The same channels with `parts` in place of `whole`."""
        runs = ([Run(part, r.repeat) for part in parts] if r.space.root() is whole else [r] for r in self.runs)
        return Flow(tuple(run for several in runs for run in several), self.axis)
