"""Specs of networks: a JSON file beside the weights, or options of a command."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.local.class_files import read_class_file
from pnc_core.config import NetworkSpec
from pnc_core.errors import BundleError, ConfigError
from pnc_core.module.manifest import build
from pnc_core.networks.classes import BY_NAME


def given_spec(
    path: Path,
    fields: Mapping[str, str | None],
    options: Sequence[str],
    found: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, str | float | bool | None] | None = None,
) -> NetworkSpec:
    """The spec in a file; fields given on the command line override the file's.

    Args:
        path: A JSON file with the fields of a `NetworkSpec`; it may be missing if `fields` has all of them.
        fields: `architecture`, `classes`, `input_size`, `mean` and `std` as text; None: as in the file. The text of
            `classes` may be the path of a file of names, see `app.local.class_files`.
        options: Options of the architecture, each `NAME=VALUE`.
        found: Fields that the weights tell; fields of the file and of the command line override them.
        preprocessing: Fields of a `Preprocessing`, and `crop_share`; a field that is None is as in the file.

    Raises:
        ConfigError: the file is not a spec, or a field is missing or out of its range.
    """
    spec = dict(found or {})
    if path.is_file():
        spec |= read_object(path, "the fields of a network")
    given = fields.get("classes")
    if given is not None and _is_file(given):
        fields = {**fields, "classes": None}
        spec = {name: value for name, value in spec.items() if name != "class_aliases"} | read_class_file(Path(given))
    spec |= {name: _READERS[name](name, text) for name, text in fields.items() if text is not None}
    if options:
        spec["options"] = {**spec.get("options", {}), **dict(name_and_value("--option", text) for text in options)}
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


def read_object(path: Path, content: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: The file.
        content: The meaning of the object's fields, for the error message.

    Raises:
        ConfigError: the file is not JSON, or holds another JSON value.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: expected JSON, got text that does not parse ({error})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected an object with {content}, got {type(value).__name__}")
    return value


def name_and_value(option: str, text: str) -> tuple[str, Any]:
    """`keep=0.5` as the name `keep` and the JSON value 0.5; a value that is not JSON is text.

    Raises:
        ConfigError: the text has no `=`; the message names `option`.
    """
    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"{option}: expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _is_file(text: str) -> bool:
    """Whether a text is the path of a file; a long list of names is longer than a path may be."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def _numbers(kind: type[int] | type[float], separator: str) -> Any:
    def read(name: str, text: str) -> list[float]:
        try:
            return [kind(part) for part in text.split(separator)]
        except ValueError:
            raise ConfigError(f"{name}: expected numbers separated by {separator!r}, got {text!r}") from None

    return read


def _resize_size(changed: dict[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Replace a crop share by `resize_size` = floor(input size / crop share), as the transforms of timm do."""
    share = changed.pop("crop_share", None)
    if share is None:
        return changed
    if "resize_size" in changed or not 0 < share <= 1 or "input_size" not in spec:
        raise ConfigError(
            "crop_share: expected a share above 0 and at most 1, an input size, and no resize_size beside it, got "
            f"{share}; leave one out"
        )
    return {**changed, "resize_size": math.floor(max(spec["input_size"][1:]) / share)}


_READERS: dict[str, Any] = {
    "architecture": lambda _, text: text,
    "classes": lambda _, text: list(BY_NAME.get(text, ())) or text.split(","),
    "input_size": _numbers(int, "x"),
    "mean": _numbers(float, ","),
    "std": _numbers(float, ","),
}
