"""Other descriptions of the same tensors: the likely mistakes in a network's registration."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from pnc_core.config import NetworkSpec
from pnc_core.errors import ConfigError
from pnc_core.networks.published import silent
from pnc_core.preprocessing import ChannelOrder, ValueRange

Numbers = tuple[float, ...]
_KNOWN: dict[int, tuple[tuple[str, Numbers, Numbers], ...]] = {
    3: (
        ("none", (0.0,) * 3, (1.0,) * 3),
        ("of ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("of CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
        ("of CIFAR-100", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        ("0.5 and 0.5", (0.5,) * 3, (0.5,) * 3),
    ),
    1: (
        ("none", (0.0,), (1.0,)),
        ("of MNIST", (0.1307,), (0.3081,)),
        ("0.5 and 0.5", (0.5,), (0.5,)),
    ),
}
"""Title, mean and standard deviation by number of channels, RGB, 0..1."""
_CAFFE = (123.675, 116.28, 103.53)
"""Mean of ImageNet in 0..255, RGB; networks of Caffe subtract it and divide by nothing."""
SIDES = (32, 64, 224)
"""Input sizes that are tried. Own choice: those of CIFAR, Tiny-ImageNet and ImageNet."""


@dataclass(frozen=True)
class Variant:
    """A description that differs from the registered one in some fields."""

    title: str
    spec: NetworkSpec
    changes: int = 1
    """Number of mistakes that it assumes."""

    @property
    def cost(self) -> int:
        """Pixels of the input: what an image costs is proportional to them."""
        return self.spec.input_size[1] * self.spec.input_size[2]


def variants(spec: NetworkSpec, images: Tensor) -> list[Variant]:
    """Variants of a description, apart from the input size and the order of the classes.

    Args:
        spec: The registered description.
        images: uint8 (N, C, H, W), to measure mean and standard deviation.
    """
    return [*_options(spec), *pixels(spec, images)]


def sizes(spec: NetworkSpec) -> Iterator[Variant]:
    """Variants with another input size."""
    for side in SIDES:
        if spec.input_size[1:] != (side, side):
            rule = replace(spec.preprocessing, resize_size=None)
            size = (spec.input_size[0], side, side)
            yield Variant(f"input size {side} x {side}", replace(spec, input_size=size, preprocessing=rule))


def _options(spec: NetworkSpec) -> Iterator[Variant]:
    for text in silent(spec.architecture, spec.options):
        name, _, value = text.partition("=")
        options = spec.options | {name: json.loads(value) if value in ("true", "false") else value}
        yield Variant(text, replace(spec, options=options))


def pixels(spec: NetworkSpec, images: Tensor) -> Iterator[Variant]:
    """Other mean and standard deviation, channel order and value range, each combination once."""
    seen = {_key(spec)}
    for title, mean, std, values, order in _all_pixels(spec, images):
        rule = replace(spec.preprocessing, channel_order=order, value_range=values)
        try:
            changed = replace(spec, mean=mean, std=std, preprocessing=rule)
        except ConfigError:  # for example images of one grey have no deviation
            continue
        parts = [
            f"mean and std {title}" if (mean, std) not in ((spec.mean, spec.std), _reversed(spec)) else "",
            f"channel order {order}" if order != spec.preprocessing.channel_order else "",
            f"value range {values}" if values != spec.preprocessing.value_range else "",
        ]
        named = [part for part in parts if part]
        if _key(changed) not in seen and named:
            seen.add(_key(changed))
            yield Variant(", ".join(named), changed, len(named))


def _all_pixels(spec: NetworkSpec, images: Tensor) -> Iterator[tuple[str, Numbers, Numbers, ValueRange, ChannelOrder]]:
    channels, rule = spec.input_size[0], spec.preprocessing
    other: ValueRange = "0..255" if rule.value_range == "0..1" else "0..1"
    known: list[tuple[str, Numbers, Numbers, ValueRange]] = [
        (title, mean, std, "0..1") for title, mean, std in _KNOWN.get(channels, ())
    ]
    if channels == images.shape[1]:
        pixels = images.movedim(1, 0).flatten(1).float() / 255
        mean, std = (tuple(round(x, 4) for x in values.tolist()) for values in (pixels.mean(1), pixels.std(1)))
        known.append(("measured from these images", mean, std, "0..1"))
    known.append(("none", (0.0,) * channels, (1.0,) * channels, "0..255"))
    if channels == 3:
        known.append(("of ImageNet, not divided", _CAFFE, (1.0,) * 3, "0..255"))
    orders: Sequence[ChannelOrder] = ("rgb", "bgr") if channels == 3 else ("rgb",)
    for order in orders:
        yield "", spec.mean, spec.std, rule.value_range, order
        yield "", spec.mean, spec.std, other, order
        if order != rule.channel_order:
            yield "", *_reversed(spec), rule.value_range, order
        for title, mean, std, values in known:
            yield (title, mean, std, values, order) if order == "rgb" else (title, mean[::-1], std[::-1], values, order)


def _reversed(spec: NetworkSpec) -> tuple[Numbers, Numbers]:
    return spec.mean[::-1], spec.std[::-1]


def _key(spec: NetworkSpec) -> tuple[object, ...]:
    """Equal where the inputs of the network are: a range of 0..255 and 255 times the numbers change nothing."""
    scale = 255 if spec.preprocessing.value_range == "0..255" else 1
    numbers = (tuple(round(x / scale, 5) for x in values) for values in (spec.mean, spec.std))
    return (*numbers, spec.preprocessing.channel_order)


def fields(before: NetworkSpec, after: NetworkSpec) -> dict[str, Any]:
    """The fields of a description that another one changes, as JSON holds them; nested fields whole."""
    old, new = before.to_dict(), after.to_dict()
    names = [name for name in ("options", "input_size", "classes", "mean", "std") if old[name] != new[name]]
    found = {name: list(new[name]) if isinstance(new[name], tuple) else new[name] for name in names}
    rule, other = before.preprocessing, after.preprocessing
    changed = [n for n in ("resize_size", "channel_order", "value_range") if getattr(rule, n) != getattr(other, n)]
    return found | ({"preprocessing": {name: getattr(other, name) for name in changed}} if changed else {})
