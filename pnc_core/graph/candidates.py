"""Architectures that a file of weights could be meant for, with options read off its tensors."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from pnc_core.config import NetworkSpec
from pnc_core.errors import ConfigError, NetworkError
from pnc_core.graph.architectures import architectures, build_network, timm_architectures
from pnc_core.networks.matching import Shapes
from pnc_core.networks.published import PUBLISHED, Published
from pnc_core.vision import timm_package

Option = int | float | bool | str
Options = dict[str, Option]
_LAST = re.compile(r"(^|\.)(fc|linear|classifier|heads?|logits|output|last_linear)(\.|$)")
_DEEPEST = 3000
"""Tensors from which on networks of a thousand layers are tried."""
_MULTIPLIERS = {16: 0.5, 24: 0.75, 48: 1.4}
"""Width of MobileNetV2 by the channels of its first layer; these are published beside 1."""
_TENSORFLOW = re.compile(r"_blocks\.\d+\._depthwise_conv\.")
"""Names of tensors in lukemelas/EfficientNet-PyTorch."""
_ALIKE = 0.5
"""Least share of equal names of a family of timm, numbers aside."""


@dataclass(frozen=True)
class Facts:
    """Numbers that a file's tensors show."""

    shapes: Shapes
    ordered: bool
    """Whether the tensors come in the network's order."""

    @cached_property
    def classes(self) -> int:
        """Rows of the last layer; 0 where there is none."""
        return self.last[0] if self.last else 0

    @cached_property
    def last(self) -> tuple[int, ...]:
        """Shape of the last layer's weight; empty where there is none."""
        weights = [(name, shape) for name, shape in self.shapes.items() if len(shape) in (2, 4)]
        if not self.ordered:
            named = [pair for pair in weights if _LAST.search(pair[0])]
            flat = [pair for pair in named or weights if len(pair[1]) == 2]
            weights = sorted(flat or named or weights)
        return weights[-1][1] if weights else ()

    @cached_property
    def stem(self) -> tuple[int, ...]:
        """Shape of the first convolution; empty where there is none."""
        maps = [shape for shape in self.shapes.values() if len(shape) == 4]
        if not self.ordered:
            maps = [shape for shape in maps if shape[1] in (3, 1) and shape[2] > 1] or maps
            maps.sort(key=lambda shape: (shape[1] != 3, shape[0]))
        return maps[0] if maps else ()

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.stem[1] if self.stem and self.stem[1] <= 4 else 3

    @property
    def hidden(self) -> int:
        """Inputs of the last layer where three linear layers follow one another; else 0."""
        return self.last[1] if sum(len(shape) == 2 for shape in self.shapes.values()) == 3 else 0


@dataclass(frozen=True)
class Candidate:
    """An architecture with options, under the names of a repository or its own."""

    architecture: str
    options: Options
    published: Published | None = None

    @property
    def key(self) -> tuple[str, tuple[tuple[str, Option], ...]]:
        """Equal where the networks are."""
        return self.architecture, tuple(sorted(self.options.items()))

    def name(self, own: str) -> str:
        """The name in the file of one of the network's tensors."""
        return self.published.name(own) if self.published else own


def built_in(facts: Facts) -> Iterator[Candidate]:
    """Architectures of this library, those for small images under the names of each repository."""
    for published in PUBLISHED:
        for name in published.architectures:
            if _is_deep_enough(name, facts):
                size = {} if "shortcut" in published.options and "mobile" in name else _size(name, facts)
                size.pop("hidden", None)
                yield Candidate(name, {**size, **published.options}, published)
    for name in architectures():
        if not name.startswith("torchvision/") and _is_deep_enough(name, facts):
            yield Candidate(name, _size(name, facts))


def _is_deep_enough(name: str, facts: Facts) -> bool:
    """Whether a candidate is worth building: ResNet-1202 takes seconds, and no smaller file fits it."""
    return name != "cifar/resnet1202" or len(facts.shapes) > _DEEPEST


def by_repository(facts: Facts) -> Iterator[Candidate]:
    """Networks of timm that a file's names belong to, although other networks have equal shapes in equal order.

    lukemelas/EfficientNet-PyTorch pads as TensorFlow does, and so do only timm's `tf_` networks.
    """
    package = timm_package() if any(_TENSORFLOW.match(name) for name in facts.shapes) else None
    names = package.list_models("tf_efficientnet_*") if package is not None else ()
    yield from (Candidate(f"timm/{name}", {}) for name in names)


def torchvision(facts: Facts) -> Iterator[Candidate]:
    """Classifiers of torchvision."""
    yield from (Candidate(name, {}) for name in architectures() if name.startswith("torchvision/") and facts.shapes)


def timm(facts: Facts, noted: str | None) -> Iterator[Candidate]:
    """The noted architecture alone where timm has it; else those of its modules whose names are most alike."""
    package = timm_package()
    if package is None or not facts.shapes:
        return
    if f"timm/{noted}" in timm_architectures():
        yield Candidate(f"timm/{noted}", {})
        return
    words, alike = _words(facts.shapes), []
    for module in package.list_modules():
        names = sorted(package.list_models(module=module), key=len)
        own = network_shapes(Candidate(f"timm/{names[0]}", {}), facts) if names else None
        alike.append((len(words & _words(own)) / len(words | _words(own)) if own else 0.0, names))
    for share, names in sorted(alike, key=lambda pair: -pair[0])[:2]:
        yield from (Candidate(f"timm/{name}", {}) for name in names if share > _ALIKE)


def _words(shapes: Shapes) -> set[str]:
    return {re.sub(r"\d+", "0", name) for name in shapes}


def _size(name: str, facts: Facts) -> Options:
    """Options of size where they are not the architecture's own."""
    rows, features = (facts.stem[0] if facts.stem else 0), (facts.last[1] if len(facts.last) > 1 else 0)
    known = inspect.signature(architectures()[name]).parameters
    found: Options = {"widen": features // 64} if "widen" in known else {"width": rows, "growth": rows // 2}
    found["hidden"] = facts.hidden
    if name == "mobilenetv2":
        found["width"] = features // 8
    elif name == "cifar/mobilenetv2":
        found["width"] = _MULTIPLIERS.get(rows, 1.0)
    elif "repvgg" in name:
        del found["width"]
    return {n: value for n, value in found.items() if value and n in known and known[n].default != value}


def shapes_of(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's tensors by name.

    Raises:
        ConfigError: an option of the architecture is unknown or out of range.
        NetworkError: the network cannot be built.
    """
    return {name: tuple(t.shape) for name, t in build_network(spec, device="meta").state_dict().items()}


@lru_cache(maxsize=8192)
def _built(
    name: str, options: tuple[tuple[str, Option], ...], classes: int, size: tuple[int, int, int]
) -> dict[str, tuple[int, ...]] | None:
    channels = size[0]
    try:
        spec = NetworkSpec(
            architecture=name, classes=tuple(map(str, range(max(2, classes)))), input_size=size,
            mean=(0.0,) * channels, std=(1.0,) * channels, options=dict(options),
        )  # fmt: skip
        return shapes_of(spec)
    except (ConfigError, NetworkError):
        return None


def network_shapes(
    candidate: Candidate, facts: Facts, input_size: tuple[int, int, int] | None = None
) -> dict[str, tuple[int, ...]] | None:
    """Shapes of a candidate's tensors; None where it cannot be built.

    Args:
        candidate: The architecture.
        facts: Of the file; the network gets its classes and channels.
        input_size: Channels, height and width of an image; by default 224 or 32 pixels a side.
    """
    side = 224 if candidate.architecture.startswith(("torchvision/", "timm/")) else 32
    return _built(*candidate.key, facts.classes, input_size or (facts.channels, side, side))
