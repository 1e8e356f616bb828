"""Preprocessing of a network: how a decoded image becomes its input."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

from pnc_core.errors import ConfigError

ResizeRule = Literal["squash", "shorter-side"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
ChannelOrder = Literal["rgb", "bgr"]
ValueRange = Literal["0..1", "0..255"]
MAX_SIDE = 8192
"""Largest side that an image can be resized to before the crop."""
STRICT = {"extra": "forbid", "use_attribute_docstrings": True}
"""Configuration of pydantic for the dataclasses that requests bring."""
_WITHOUT_ANTIALIAS = ("nearest", "bilinear", "bicubic")


def check(ok: bool, name: str, expected: str, got: object) -> None:
    """Refuse a value.

    Raises:
        ConfigError: `ok` is false.
    """
    if not ok:
        raise ConfigError(f"{name}: expected {expected}, got {got!r}")


@dataclass(frozen=True)
class Geometry:
    """How a decoded image becomes 8-bit pixels of a network's size. Networks of equal geometry share these pixels."""

    size: tuple[int, int, int]
    """Channels, height and width of the result; the last step is a centre crop to this height and width."""
    resize: ResizeRule = "squash"
    resize_size: tuple[int, int] | int | None = None
    """`squash`: height and width before the crop, none: the result's; `shorter-side`: that side before the crop."""
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    @property
    def is_plain(self) -> bool:
        """Is it only a bilinear resize to the network's size?"""
        return self == Geometry(self.size)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a decoded image becomes the input of a network, apart from input size, mean and standard deviation.

    The steps, in order: resize, centre crop to the input size, channel order, value range, mean, standard deviation.

    Raises:
        ConfigError: a value is out of its range.
    """

    __pydantic_config__: ClassVar = STRICT

    resize: ResizeRule = "squash"
    """`squash` resizes height and width independently; `shorter-side` keeps the aspect ratio."""
    resize_size: int | None = None
    """Pixels of the shorter side (`squash`: of both sides) before the centre crop; none: the input size."""
    interpolation: Interpolation = "bilinear"
    """How pixels are interpolated; the names are Pillow's."""
    antialias: bool = True
    """Average over the source pixels when an image is made smaller, as Pillow does it."""
    channel_order: ChannelOrder = "rgb"
    """Order of the three colour channels."""
    value_range: ValueRange = "0..1"
    """Range of the pixels from which `mean` is subtracted."""

    def __post_init__(self) -> None:
        for name, choices in _PREPROCESSING_CHOICES.items():
            check(getattr(self, name) in choices, name, f"one of {choices}", getattr(self, name))
        size = self.resize_size
        in_range = size is None or (type(size) is int and 0 < size <= MAX_SIDE)
        check(in_range, "resize_size", f"an integer from 1 to {MAX_SIDE}, or none", size)
        check(type(self.antialias) is bool, "antialias", "true or false", self.antialias)
        can_do_without = self.antialias or self.interpolation in _WITHOUT_ANTIALIAS
        check(can_do_without, "interpolation", f"one of {_WITHOUT_ANTIALIAS} without antialias", self.interpolation)

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        plain = asdict(Preprocessing())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}

    def describe(self, input_size: tuple[int, ...]) -> str:
        """One line for people, e.g. `shorter side to 256, crop 224 x 224, bilinear, RGB, 0..1`."""
        height, width = input_size[1:]
        size = self.resize_size
        crop = f"crop {height} x {width}"
        if self.resize == "shorter-side":
            steps = [f"shorter side to {size or max(height, width)}", crop]
        elif size is not None and (size, size) != (height, width):
            steps = [f"squash to {size} x {size}", crop]
        else:
            steps = [f"squash to {height} x {width}"]
        blunt = [] if self.antialias else ["no antialias"]
        order = [self.channel_order.upper()] if input_size[0] == 3 else []
        return ", ".join([*steps, self.interpolation, *blunt, *order, self.value_range])


_PREPROCESSING_CHOICES = {
    "resize": get_args(ResizeRule),
    "interpolation": get_args(Interpolation),
    "channel_order": get_args(ChannelOrder),
    "value_range": get_args(ValueRange),
}
