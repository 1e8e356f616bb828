"""The manifest of a bundle: a module's classes, source, target, parts and origin.

The JSON form is canonical (sorted keys, no spaces, UTF-8), so that equal
manifests have equal bytes. Reading is strict, because a manifest may come from an untrusted source: unknown or missing
fields and wrong types are errors.
"""

import json
import math
import types
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.errors import BundleError
from pnc_core.module.verdict import Verdict

FORMAT = "pnc-bundle/1"
Payload = Literal["thin", "full"]
Resize = Literal["cells", "pixels", "image"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Counts of numbers (parameters and buffers)."""

    source: int
    """Numbers of the whole source network."""
    module: int
    """Numbers of the kept slices of the source; a thin bundle does not contain them."""
    adapter: int
    """Numbers of front adapter, channel calibration and parallel adapters."""
    head: int
    """Numbers of the head."""


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """Structure of the head; its numbers are among the bundle's tensors."""

    kind: Literal["affine", "router", "joint"]
    grid: int
    """The head reads every tap's means over `grid` x `grid` cells, and its standard deviation over all places."""
    target_taps: tuple[str, ...]
    """Positions of the target that the head reads: all, or the last few."""
    module_taps: tuple[str, ...]
    """Positions of the module's tail that the head reads: all, or the last few."""
    strict: bool = False
    """A locality gate on the target's taps decides whether the module runs."""
    odds: bool = False
    """The module keeps the rows of all classes of the source, cloned classes first. Its logits are log-odds against all
    other classes of the source."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Description of a bundle: everything except its tensors."""

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
    """The adapter ends in a ReLU."""
    kept_fraction: float
    """Copied numbers of the module / numbers of the uncut tail at this position; above 0 and at most 1."""
    head: HeadSpec
    sizes: Sizes
    validation: dict[str, float]
    """Accuracies on images that judged the head: `old`, `new`, `average`, each 0..1."""
    config: CloneConfig
    created_by: str
    """Name and version of the software."""
    inner: tuple[str, ...] = ()
    """Layers of the source that have a parallel adapter."""
    adapter_resize: Resize = "cells"
    """Resizing of the front adapter: `cells` averages or repeats cells, `pixels` resizes an image bilinearly. With
    `image` the module reads no activation of the target and takes the image preprocessed for the source."""
    verdict: Verdict | None = None
    """Comparison with answers that need no module; None for bundles of earlier versions, and for jobs without labels or
    without images of old classes."""

    def __post_init__(self) -> None:
        if not 0 < self.kept_fraction <= 1:
            raise ValueError(f"kept_fraction: expected above 0 and at most 1, got {self.kept_fraction}")
        if not all(0 <= share <= 1 for share in self.validation.values()):
            raise ValueError(f"validation: expected shares from 0 to 1, got {self.validation}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them. A missing verdict and `keep_anyway` where it is false are left out, so that
        older digests stay valid.
        """
        facts = {**asdict(self), "target": self.target.to_dict(), "source": self.source.to_dict()}
        if self.verdict is None:
            del facts["verdict"]
        if not self.head.odds:
            del facts["head"]["odds"]
        if not self.config.keep_anyway:
            del facts["config"]["keep_anyway"]
        return facts

    def to_json(self) -> str:
        """Canonical JSON text."""
        return canonical_json(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read a manifest.

        Raises:
            BundleError: the text is not JSON, or not a manifest of this format.
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
    """Build the dataclass `cls` from parsed JSON, checking every field's type.

    Args:
        cls: A dataclass made of scalars, tuples, dicts, literals and dataclasses.
        value: Result of `json.loads`.
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
