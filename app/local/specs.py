"""The description of a network beside its weights: a JSON file, or options of a command."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pnc_core.config import NetworkSpec
from pnc_core.errors import BundleError, ConfigError
from pnc_core.module.manifest import build


def given_spec(
    path: Path,
    fields: Mapping[str, str | None],
    options: Sequence[str],
    preprocessing: Mapping[str, str | float | bool | None] | None = None,
) -> NetworkSpec:
    """The network that a file describes, with fields replaced by those given on the command line.

    Args:
        path: A JSON file with the fields of a `NetworkSpec`; it may be missing when all fields are given.
        fields: `architecture`, `classes`, `input_size`, `mean` and `std` as text; None: as in the file.
        options: Of the architecture, `name=value`.
        preprocessing: Fields of a `Preprocessing`, and `crop_share`; None: as in the file.

    Raises:
        ConfigError: the file is not such a description, or a field is missing or out of its range.
    """
    spec = _read(path) if path.is_file() else {}
    spec |= {name: _READERS[name](name, text) for name, text in fields.items() if text is not None}
    if options:
        spec["options"] = {**spec.get("options", {}), **dict(_option(text) for text in options)}
    changed = {name: value for name, value in (preprocessing or {}).items() if value is not None}
    if changed:
        spec["preprocessing"] = {**spec.get("preprocessing", {}), **_resize_size(changed, spec)}
    if not spec:
        raise ConfigError(
            f"expected {path} to describe the network, got no such file; write its spec there (architecture, classes, "
            "input_size, mean, std, options), or name another file"
        )
    try:
        return build(NetworkSpec, spec, str(path))
    except BundleError as error:
        raise ConfigError(str(error)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: expected JSON, got text that does not parse ({error})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected an object with the fields of a network, got {type(value).__name__}")
    return value


def _numbers(kind: type[int] | type[float], separator: str) -> Any:
    def read(name: str, text: str) -> list[float]:
        try:
            return [kind(part) for part in text.split(separator)]
        except ValueError:
            raise ConfigError(f"{name}: expected numbers separated by {separator!r}, got {text!r}") from None

    return read


def _resize_size(changed: dict[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """A crop share as the `resize_size` that timm's and torchvision's transforms make of it."""
    share = changed.pop("crop_share", None)
    if share is None:
        return changed
    if "resize_size" in changed or not 0 < share <= 1 or "input_size" not in spec:
        raise ConfigError(
            "crop_share: expected a share above 0 and at most 1, an input size, and no resize_size beside it, got "
            f"{share}; leave one out"
        )
    return {**changed, "resize_size": math.floor(max(spec["input_size"][1:]) / share)}


def _option(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--option: expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


_READERS: dict[str, Any] = {
    "architecture": lambda _, text: text,
    "classes": lambda _, text: text.split(","),
    "input_size": _numbers(int, "x"),
    "mean": _numbers(float, ","),
    "std": _numbers(float, ","),
}
