"""The manifest of a bundle: what a module is, where it came from and where it goes.

The JSON form is canonical (sorted keys, no spaces, UTF-8), so that equal
manifests have equal bytes. Reading is strict: unknown or missing fields and
wrong types are errors, because a manifest may come from anybody.
"""

import json
import math
import types
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.errors import BundleError

FORMAT = "pnc-bundle/1"
Payload = Literal["thin", "full"]
Resize = Literal["cells", "pixels", "image"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Counts of numbers (parameters and buffers) behind a module."""

    source: int
    """The whole source network."""
    module: int
    """The kept slices of the source: in a full bundle only."""
    adapter: int
    """Front adapter, channel calibration and parallel adapters."""
    head: int
    """Head: scalars, and gate or correction."""


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """How the head is built; its numbers are among the bundle's tensors."""

    kind: Literal["affine", "router", "joint"]
    grid: int
    """Of every tap the means over `grid` x `grid` cells are read, and the standard deviation over all places."""
    target_taps: tuple[str, ...]
    """Positions of the target that the head reads: all, or the last few."""
    module_taps: tuple[str, ...]
    """Positions of the module's tail that the head reads, likewise."""
    strict: bool = False
    """Whether a locality gate on the target's taps decides if the module is run at all."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that a bundle says about itself, apart from its tensors."""

    format: str
    payload: Payload
    classes: tuple[str, ...]
    """Cloned classes, in the order of the module's logits."""
    target: NetworkSpec
    target_fingerprint: str
    source: NetworkSpec
    source_fingerprint: str
    position: Position
    adapter_relu: bool
    """Whether the adapter ends in a ReLU."""
    kept_fraction: float
    """Numbers of the module over those of the whole source tail at this position, above 0 and at most 1."""
    head: HeadSpec
    sizes: Sizes
    validation: dict[str, float]
    """Accuracies on the job's held-out images: `old`, `new`, `average`, each 0..1."""
    config: CloneConfig
    created_by: str
    """Name and version of the software."""
    inner: tuple[str, ...] = ()
    """Layers of the source that have a parallel adapter beside them."""
    adapter_resize: Resize = "cells"
    """How the adapter comes to another grid: `cells` averages or repeats, `pixels` resizes an image bilinearly.
    `image`: the module reads nothing of the target; it takes the image itself, preprocessed for the source."""

    def __post_init__(self) -> None:
        if not 0 < self.kept_fraction <= 1:
            raise ValueError(f"kept_fraction: expected above 0 and at most 1, got {self.kept_fraction}")
        if not all(0 <= share <= 1 for share in self.validation.values()):
            raise ValueError(f"validation: expected shares from 0 to 1, got {self.validation}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return {**asdict(self), "target": self.target.to_dict(), "source": self.source.to_dict()}

    def to_json(self) -> str:
        """Canonical JSON text."""
        return canonical_json(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read a manifest.

        Raises:
            BundleError: not JSON, or not this format.
        """
        try:
            value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"manifest: expected JSON, got text that does not parse ({error})") from None
        got = value.get("format") if isinstance(value, dict) else None
        if got != FORMAT:
            raise BundleError(f"manifest: expected format {FORMAT!r}, got {got!r}; use a matching version")
        return build(cls, value, "manifest")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is repeated")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def build(cls: type[T], value: object, where: str) -> T:
    """Make the dataclass `cls` from parsed JSON, checking every field's type.

    Args:
        cls: A dataclass made of scalars, tuples, dicts, literals and dataclasses.
        value: What `json.loads` gave.
        where: Name of the value for messages.

    Raises:
        BundleError: a field is unknown, missing or of another type.
    """
    if not isinstance(value, dict):
        raise BundleError(f"{where}: expected an object, got {type(value).__name__}")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise BundleError(f"{where}: expected only {sorted(known)}, got also {unknown}")
    hints = get_type_hints(cls)
    arguments = {}
    for name, spec in known.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], f"{where}.{name}")
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise BundleError(f"{where}: expected the field {name!r}, got none")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise BundleError(f"{where}: {error}") from None


def _convert(hint: Any, value: object, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if origin is Literal and value in args:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is tuple and isinstance(value, list):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) == len(value):
            return tuple(_convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {key: _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, where)
    if hint in (str, int, bool, types.NoneType) and type(value) is hint:
        return value
    raise BundleError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r:.80}")


def _finite(value: int | float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BundleError(f"{where}: expected a finite number, got one that is too large")
    return number


def _convert_union(choices: tuple[Any, ...], value: object, where: str) -> Any:
    for choice in choices:
        if choice in (int, float, bool, str, types.NoneType) and type(value) is choice:
            return _finite(value, where) if isinstance(value, float) else value
    if float in choices and type(value) is int:
        return _finite(value, where)
    for choice in choices:
        if is_dataclass(choice) and isinstance(value, dict):
            return build(choice, value, where)  # type: ignore[arg-type]
    raise BundleError(f"{where}: expected one of {choices}, got {value!r:.80}")
