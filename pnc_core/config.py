"""Parameters of a cloning job and description of a network: frozen dataclasses for library, API, CLI and row."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, get_args

from pnc_core.preprocessing import STRICT, Geometry, Preprocessing, check
from pnc_core.spelling import is_class_name, normal_name

HeadKind = Literal["auto", "affine", "router", "joint"]
Augmentation = Literal["none", "shift", "shift-flip"]
Preset = Literal["fast", "joint"]
Masking = Literal["learned", "scored"]
Locality = Literal["soft", "strict"]
Precision = Literal["float32", "bfloat16", "auto"]
Localizer = Literal["log-odds", "fisher", "taylor", "lime", "gradient-activation", "magnitude", "random"]
DEFAULT_SIZE = 0.6
"""Largest size of a module with a cut tail, as a share of the source, if a job gives none."""
MIN_IMAGES = 3
"""Images that a job needs of every class: one is held out, and the screen needs two more to fit and to judge."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """A pair of positions: where the target is read and where the source is entered."""

    __pydantic_config__: ClassVar = STRICT

    target: str
    """Position in the target, as `pnc inspect` lists it; `input` is the image itself."""
    source: str
    """Position in the source at which the cloned tail begins."""

    def __str__(self) -> str:
        return f"{self.target}->{self.source}"


@dataclass(frozen=True, kw_only=True)
class CloneConfig:
    """Parameters of one cloning job.

    Defaults are our own choice; docs/method.md says what each is for.

    Raises:
        ConfigError: a value is out of its range.
    """

    __pydantic_config__: ClassVar = STRICT

    classes: tuple[str, ...]
    """Names of the source's classes to clone, without repetition."""
    preset: Preset = "joint"
    """`joint` learns mask, adapters and head; `fast` only solves what has a closed form: seconds, not minutes."""
    keep: float = 0.5
    """Share of the cloned tail's parameters that localization keeps, above 0 and at most 1."""
    localizer: Localizer = "log-odds"
    """How channels are scored: `log-odds`, `fisher` (Fisher-Taylor), `taylor`, `lime` (local behaviour),
    `gradient-activation`, `magnitude` or `random`."""
    masking: Masking = "learned"
    """`learned`: the mask starts from the scores and is learned together with the adapters; `scored`: as scored."""
    inner_adapters: bool = True
    """Put light adapters beside the kept layers, too."""
    head: HeadKind = "auto"
    """How old and new logits meet; `auto` takes the one with the lowest loss on held-out images."""
    tap_grid: int = 2
    """Heads read the means of activations over this many cells a side, and their spread."""
    locality: Locality = "soft"
    """`strict`: where a gate on the target's own taps stays shut, the module is not run and the old answer stands."""
    position: Position | None = None
    """Fix the pair of positions instead of searching for it."""
    max_size: float | None = None
    """Share of the source's parameters that the whole module may hold: copies, adapters and head. Less than `keep` is
    kept where that is needed; positions where nothing fits are dropped. None: 0.6, or the whole source where the images
    are too few to show that a module of this size is as good as both networks side by side."""
    max_macs: float | None = None
    """Share of the source's multiply-accumulates that the whole module may add to an image; as with `max_size`."""
    shortlist: int = 4
    """How many screened positions are trained; halved until one is left."""
    epochs: int = 12
    """Epochs of feature matching for the position that wins; `fast` has none."""
    refine: int = 0
    """Epochs in which adapters and head then learn the labels together; kept only if held-out images are better off.
    `fast` has none."""
    augment: Augmentation = "shift"
    """Views of the images to learn from: random shifts by up to an eighth, also mirrored with `shift-flip`."""
    views: int = 8
    """Augmented views of every image that the heads are fitted on; fewer where these would be over 40,000 in all."""
    batch_size: int = 128
    """Images in one training batch."""
    learning_rate: float = 3e-3
    """Peak learning rate of adapter and calibration (AdamW, one cycle)."""
    screen_images: int = 2000
    """Images at most that the training-free screen looks at."""
    old_images: bool = True
    """False: the job has no image of the target's own classes, and heads are fitted without; `joint` heads, `strict`
    locality and `refine` need some."""
    labels: bool = True
    """False: labels are not read; the more certain of the two networks names every image, or the source alone where
    there are no old images."""
    precision: Precision = "float32"
    """`bfloat16` runs the networks in bfloat16 while cloning: faster where the device has instructions for it, up to
    twenty times slower where not, and with other last bits. `auto` takes it where it is quicker, so that a bundle
    depends on the machine; its manifest says which was taken. What is solved in closed form is float32 or float64."""
    validation: float = 0.25
    """Share of the job's images held out to choose position and head."""
    keep_anyway: bool = False
    """Make the module although it is less accurate than an answer that needs no module."""
    seed: int = 0
    """Seed of every random choice; equal seeds and inputs give equal bundles."""

    def __post_init__(self) -> None:
        check(not isinstance(self.classes, str), "classes", "a list of class names", self.classes)
        object.__setattr__(self, "classes", tuple(map(_normal, self.classes)))
        for name in ("keep", "max_size", "max_macs", "learning_rate", "validation"):
            if isinstance(value := getattr(self, name), Real):
                object.__setattr__(self, name, float(value))
        check(len(self.classes) > 0, "classes", "at least one class name", self.classes)
        check(len(set(self.classes)) == len(self.classes), "classes", "no repetition", self.classes)
        check(0 < self.keep <= 1, "keep", "a share above 0 and at most 1", self.keep)
        most_size = "a share above 0 and at most 2, or none"
        check(self.max_size is None or 0 < self.max_size <= 2, "max_size", most_size, self.max_size)
        check(0.05 <= self.validation <= 0.5, "validation", "a share from 0.05 to 0.5", self.validation)
        corrected = self.locality == "strict" and self.head == "joint"
        check(not corrected, "head", "affine, router or auto where locality is strict: old answers stand", self.head)
        blind = not self.old_images
        learned = "where old_images is false: it is learned from images of old classes; give some, or leave it"
        check(not (blind and self.head == "joint"), "head", f"affine, router or auto {learned}", self.head)
        check(not (blind and self.locality == "strict"), "locality", f"soft {learned}", self.locality)
        check(not (blind and self.refine), "refine", f"0 {learned}", self.refine)
        most_macs = "a share above 0 and at most 100, or none"
        check(self.max_macs is None or 0 < self.max_macs <= 100, "max_macs", most_macs, self.max_macs)
        check(0 < self.learning_rate <= 1, "learning_rate", "above 0 and at most 1", self.learning_rate)
        for name, low, high in _INTEGER_RANGES:
            value = getattr(self, name)
            check(type(value) is int and low <= value <= high, name, f"an integer from {low} to {high}", value)
        for name, choices in _CHOICES.items():
            check(getattr(self, name) in choices, name, f"one of {choices}", getattr(self, name))

    @property
    def size_limit(self) -> float:
        """Share of the source's parameters that a module with a cut tail may hold."""
        return DEFAULT_SIZE if self.max_size is None else self.max_size

    @property
    def may_grow(self) -> bool:
        """Whether the module may be the whole source: nothing bounds its size or fixes its position, and labelled
        images of old and cloned classes can show that it is needed.
        """
        unbounded = self.max_size is None and self.max_macs is None and self.keep == CloneConfig.keep
        return unbounded and self.position is None and self.labels and self.old_images

    @property
    def min_images(self) -> int:
        """Least number of images of each class."""
        return 1 if self.may_grow else MIN_IMAGES

    @property
    def reconstructs(self) -> bool:
        """Whether the layer of the logits gets an adapter in closed form: where nothing is learned, and where no head
        learns from old images what the module's logits lack.
        """
        return self.inner_adapters and (self.preset == "fast" or not self.old_images)


_CHOICES = {
    "head": get_args(HeadKind),
    "localizer": get_args(Localizer),
    "augment": get_args(Augmentation),
    "preset": get_args(Preset),
    "masking": get_args(Masking),
    "locality": get_args(Locality),
    "precision": get_args(Precision),
}
_INTEGER_RANGES = (
    ("shortlist", 1, 64),
    ("epochs", 1, 1000),
    ("refine", 0, 1000),
    ("batch_size", 2, 65536),
    ("screen_images", 32, 1_000_000),
    ("tap_grid", 1, 8),
    ("views", 1, 100),
    ("seed", 0, 2**32 - 1),
)


_PLAIN: dict[str, tuple[type, Callable[[Any], Any], str]] = {
    "classes": (str, normal_name, "names"),
    "input_size": (Integral, int, "whole numbers"),
    "mean": (Real, float, "numbers"),
    "std": (Real, float, "numbers"),
}
"""What a network's fields hold, and as what."""


def _plain(value: object) -> object:
    """Numbers of other libraries as Python's own, which can be written into a bundle."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _normal(name: Any) -> Any:
    return normal_name(name) if isinstance(name, str) else name


def _twice(names: Sequence[str]) -> list[str]:
    """At most three names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1][:3]


def _aliases(classes: Sequence[str], given: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    table = {_normal(name): tuple(map(_normal, others)) for name, others in given.items()}
    unknown = list(table.keys() - set(classes))[:3]
    check(not unknown, "class_aliases", "names of classes as keys", unknown)
    odd = [name for name, others in table.items() if not others or not all(map(is_class_name, others))][:3]
    check(not odd, "class_aliases", "a list of printable names of 1 to 128 characters for each class", odd)
    return table


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Everything but the weights that is needed to rebuild a network and feed it.

    Raises:
        ConfigError: a value is out of its range.
    """

    __pydantic_config__: ClassVar = STRICT

    architecture: str
    """Name on the allow-list of `pnc_core.graph.architectures`, e.g. `resnet20` or `torchvision/resnet18`."""
    classes: tuple[str, ...]
    """Class names in the order of the logits."""
    input_size: tuple[int, int, int]
    """Channels, height and width of one image."""
    mean: tuple[float, ...]
    """Per-channel mean, subtracted from pixels in the range and the channel order of `preprocessing` (0..1, RGB)."""
    std: tuple[float, ...]
    """Per-channel standard deviation that pixels are divided by."""
    options: dict[str, int | float | bool | str] = field(default_factory=dict)
    """Options of the architecture, e.g. `{"width": 32}`."""
    class_aliases: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    """Other names of classes that requests may use, e.g. `{"n01443537": ["goldfish"]}`. Bundles leave them out."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    """How a decoded image is resized and scaled; default: bilinear resize to the input size, RGB, 0..1."""

    @property
    def geometry(self) -> Geometry:
        """The part of the preprocessing that changes the image's size. Equal rules give equal geometries."""
        rule, (_, height, width) = self.preprocessing, self.input_size
        side = rule.resize_size
        size: tuple[int, int] | int | None = side or max(height, width)
        if rule.resize == "squash":
            size = None if side is None or (side, side) == (height, width) else (side, side)
        antialias = rule.antialias or rule.interpolation == "nearest"
        return Geometry(self.input_size, rule.resize, size, rule.interpolation, antialias)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them. Empty aliases and a default preprocessing are left out, so that older digests
        stay valid.
        """
        fields = {name: value for name, value in asdict(self).items() if name not in ("class_aliases", "preprocessing")}
        table = {name: list(others) for name, others in self.class_aliases.items()}
        changed = self.preprocessing.to_dict()
        fields |= {"class_aliases": table} if table else {}
        return fields | ({"preprocessing": changed} if changed else {})

    def __post_init__(self) -> None:
        for name, (kind, plain, expected) in _PLAIN.items():
            given = tuple(getattr(self, name))
            check(all(isinstance(value, kind) for value in given), name, expected, given)
            object.__setattr__(self, name, tuple(map(plain, given)))
        object.__setattr__(self, "options", {name: _plain(value) for name, value in self.options.items()})
        object.__setattr__(self, "class_aliases", _aliases(self.classes, self.class_aliases))
        if isinstance(self.preprocessing, Mapping):  # a spec that was read from JSON without `build`
            object.__setattr__(self, "preprocessing", Preprocessing(**self.preprocessing))
        channels = self.input_size[0] if len(self.input_size) == 3 else 0
        check(len(self.classes) >= 2, "classes", "at least two class names", self.classes)
        check(len(set(self.classes)) == len(self.classes), "classes", "no repetition", _twice(self.classes))
        check(
            all(map(is_class_name, self.classes)),
            "classes",
            "printable names of 1 to 128 characters",
            next((name for name in self.classes if not is_class_name(name)), None),
        )
        check(
            len(self.input_size) == 3 and all(0 < n <= 4096 for n in self.input_size),
            "input_size",
            "channels, height and width, each from 1 to 4096",
            self.input_size,
        )
        check(
            len(self.mean) == channels and all(map(isfinite, self.mean)),
            "mean",
            f"{channels} finite numbers, one a channel",
            self.mean,
        )
        check(
            len(self.std) == channels and all(isfinite(s) and s > 0 for s in self.std),
            "std",
            f"{channels} finite positive numbers, one a channel",
            self.std,
        )
        check(
            all(isfinite(value) for value in self.options.values() if isinstance(value, float)),
            "options",
            "finite numbers",
            self.options,
        )
        rule, sides = self.preprocessing, self.input_size[1:]
        check(
            rule.resize_size is None or rule.resize_size >= max(sides),
            "preprocessing.resize_size",
            f"none, or at least {max(sides)}, the larger side of the input size",
            rule.resize_size,
        )
        check(
            rule.channel_order == "rgb" or channels == 3,
            "preprocessing.channel_order",
            "rgb for a network without three channels",
            rule.channel_order,
        )


def geometries_of(specs: Iterable[NetworkSpec]) -> list[Geometry]:
    """Geometries of networks, the first network's first; equal geometries once."""
    return list(dict.fromkeys(spec.geometry for spec in specs))
