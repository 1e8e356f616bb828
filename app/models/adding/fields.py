"""Texts of the form's fields, and the description of a network that they make."""

import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from app.models.class_lists import read_class_list
from pnc_core.config import NetworkSpec
from pnc_core.errors import BundleError, ConfigError
from pnc_core.module.manifest import build

SCALINGS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "0.5 and 0.5": ((0.5,), (0.5,)),
    "none": ((0.0,), (1.0,)),
}
"""Common means and standard deviations; one number stands for every channel."""
RULES = ("resize", "resize_size", "interpolation", "channel_order", "value_range")
"""Fields of the preprocessing that the form has."""
PREPROCESSING: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "resize": (
        "Resize",
        "squash resizes both sides; shorter-side keeps the shape and crops the centre.",
        ("squash", "shorter-side"),
    ),
    "interpolation": (
        "Interpolation",
        "How pixels are computed when an image is resized.",
        ("bilinear", "bicubic", "nearest", "box", "hamming", "lanczos"),
    ),
    "channel_order": ("Channel order", "bgr for networks that were trained on OpenCV's images.", ("rgb", "bgr")),
    "value_range": ("Range of pixels", "Of the pixels from which the mean is subtracted.", ("0..1", "0..255")),
}
"""Label, help and values of the rules; the first value is the default."""
_ODD = re.compile(r"[^a-z0-9._-]+")


class FieldErrors(Exception):
    """Messages by the names of fields."""

    def __init__(self, messages: Mapping[str, str]) -> None:
        super().__init__("; ".join(messages.values()))
        self.messages = dict(messages)


def name_of(file: str) -> str:
    """A model's name from the name of a file."""
    return _ODD.sub("-", PurePath(file).stem.lower()).strip("-._")[:63]


def shown(spec: Mapping[str, Any]) -> dict[str, str]:
    """Texts of the fields for a description, which need not be complete."""
    texts = {"architecture": str(spec.get("architecture", ""))}
    texts["options"] = " ".join(f"{name}={_text(value)}" for name, value in (spec.get("options") or {}).items())
    texts["classes"] = "\n".join(map(str, spec.get("classes") or ()))
    texts["input_size"] = " x ".join(map(str, spec.get("input_size") or ()))
    for name in ("mean", "std"):
        texts[name] = ", ".join(f"{value:.6g}" for value in spec.get(name) or ())
    rule = spec.get("preprocessing") or {}
    return texts | {name: "" if rule.get(name) is None else str(rule[name]) for name in RULES}


def scaling(mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, str]:
    """Texts of the fields for a mean and a standard deviation."""
    return {name: ", ".join(f"{value:g}" for value in values) for name, values in (("mean", mean), ("std", std))}


def options_of(text: str) -> dict[str, Any]:
    """Options of an architecture, `name=value` with spaces between.

    Raises:
        FieldErrors: a part has no `=`.
    """
    found = {}
    for part in text.split():
        name, sign, value = part.partition("=")
        if not sign or not name:
            raise FieldErrors({"options": f"expected name=value, got {part!r:.60}"})
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def size_of(text: str) -> list[int]:
    """Channels, height and width from `3 x 32 x 32`.

    Raises:
        FieldErrors: the text has another form.
    """
    parts = re.split(r"[x×, ]+", text.strip())
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise FieldErrors({"input_size": f"expected channels x height x width, such as 3 x 32 x 32, got {text!r:.40}"})
    return [int(part) for part in parts]


def description(texts: Mapping[str, str], outputs: int, aliases: Mapping[str, Any]) -> NetworkSpec:
    """The description of a network.

    Args:
        texts: By the name of the field.
        outputs: Outputs of the network's last layer; 0: unknown.
        aliases: Other names of classes; those of classes that the text lacks are left out.

    Raises:
        FieldErrors: one message for each field that is missing or malformed.
    """
    faults: dict[str, str] = {}
    fields: dict[str, Any] = {"architecture": texts["architecture"].strip()}
    readers: dict[str, Any] = {
        "options": options_of,
        "classes": lambda text: _classes(text, outputs),
        "input_size": size_of,
        "mean": lambda text: _numbers("mean", text),
        "std": lambda text: _numbers("std", text),
        "resize_size": _side,
    }
    for name, read in readers.items():
        try:
            fields[name] = read(texts[name])
        except FieldErrors as error:
            faults |= error.messages
    if not fields["architecture"]:
        faults["architecture"] = "expected an architecture, got none; choose one that fits the weights"
    if faults:
        raise FieldErrors(faults)
    rule = {name: texts[name] for name in RULES if name != "resize_size" and texts[name]}
    side = fields.pop("resize_size")
    fields["preprocessing"] = rule | ({} if side is None else {"resize_size": side})
    listed = fields["classes"]
    fields |= {**listed, "class_aliases": {**_kept(aliases, listed), **listed.get("class_aliases", {})}}
    for name in ("mean", "std"):
        fields[name] = _spread(fields[name], fields["input_size"][0])
    try:
        return build(NetworkSpec, fields, "description")
    except (BundleError, ConfigError) as error:
        raise FieldErrors(_placed(str(error))) from None


def _classes(text: str, outputs: int) -> dict[str, Any]:
    try:
        found = read_class_list(text if "\n" in text.strip() or text.lstrip()[:1] in "[{" else text.replace(",", "\n"))
    except ConfigError as error:
        raise FieldErrors({"classes": str(error).partition(": ")[2]}) from None
    count = len(found["classes"])
    if outputs and count != outputs:
        detail = f"expected {outputs:,} names, one for each output of the network and in their order, got {count:,}"
        raise FieldErrors({"classes": detail})
    return found


def _numbers(name: str, text: str) -> list[float]:
    try:
        found = [float(part) for part in re.split(r"[,; ]+", text.strip())]
    except ValueError:
        raise FieldErrors(
            {name: f"expected a number for each channel, as in training, got {text or 'none'!r:.40}"}
        ) from None
    return found


def _side(text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdigit():
        raise FieldErrors({"resize_size": f"expected a number of pixels, or nothing, got {text!r:.40}"})
    return int(text)


def _spread(numbers: list[float], channels: int) -> list[float]:
    """One number stands for every channel."""
    return numbers * channels if len(numbers) == 1 else numbers


def _kept(aliases: Mapping[str, Any], listed: Mapping[str, Any]) -> dict[str, Any]:
    names = set(listed["classes"])
    return {name: list(others) for name, others in aliases.items() if name in names}


def _placed(message: str) -> dict[str, str]:
    """The message of a `ConfigError` at the field that it names, such as `description: mean: expected ...`."""
    rest = message.removeprefix("description").lstrip(".: ")
    name, sign, detail = rest.partition(": ")
    field = name.removeprefix("preprocessing.")
    known = {"architecture", "options", "classes", "input_size", "mean", "std", *RULES}
    return (
        {field: detail} if sign and field in known else {"classes" if "class_aliases" in name else "architecture": rest}
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
