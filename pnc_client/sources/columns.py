"""Which columns of a Parquet file hold images and labels, and the names of the labels."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pnc_client.sources.found import NoColumn, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "image_data")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "class_label", "class_name", "category", "target", "y", "cls")
"""Names of columns that data sets use, the most likely ones first."""
NONE = "none"
"""The option for images without labels."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read."""

    image: str
    label: str | None
    names: list[str] | None
    """Names of the labels, if the file has them."""
    note: str
    """The choice in one line."""


def find_columns(schema: "pa.Schema", image: str | None, label: str | None) -> Columns:
    """Find the columns of images and labels: the wanted ones, those that the metadata describe, or those by name.

    Args:
        schema: Of the file.
        image: The wanted column of images.
        label: The wanted column of labels; `none` for images without labels.

    Raises:
        SourceError: no column fits, or several do.
    """
    features = features_of(schema)
    pictures = [field.name for field in schema if _holds_bytes(field.type)]
    found = _one(schema, "image", image, [name for name in pictures if _kind(features, name) == "Image"], pictures,
                 IMAGE_NAMES)  # fmt: skip
    if found is None:
        raise NoColumn(
            f"expected a column of image files, got {described(schema)}; name one with `--image-column NAME`"
        )
    if schema.field(found).name not in pictures:
        raise SourceError(f"expected bytes of image files in column {found!r}, got {schema.field(found).type}")
    labels = [field.name for field in schema if _holds_labels(field.type) and field.name != found]
    named = [name for name in labels if _kind(features, name) == "ClassLabel"]
    tag = None if label == NONE else _one(schema, "label", label, named, [], LABEL_NAMES)
    if tag is not None and tag not in labels:
        raise SourceError(
            f"expected one whole number or text a row in column {tag!r}, got {schema.field(tag).type}; "
            "name another with `--label-column NAME`"
        )
    rest = [name for name in labels if name != tag]
    unused = f"; not read: {', '.join(rest[:5])}" if rest else ""
    note = f"images from column {found}, " + (f"labels from column {tag}" if tag else "no labels") + unused
    return Columns(found, tag, _names(features, tag), note)


def features_of(schema: "pa.Schema") -> Mapping[str, Any]:
    """Features by column that the metadata of Hugging Face's libraries describe; empty without them."""
    try:
        value: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return {}
    for step in ("info", "features"):
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def described(schema: "pa.Schema") -> str:
    """Columns with their types, for messages."""
    return ", ".join(f"{field.name}: {field.type}" for field in schema)[:400] or "no columns"


def _one(
    schema: "pa.Schema", kind: str, wanted: str | None, described_as: Sequence[str], usable: Sequence[str],
    usual: Sequence[str],
) -> str | None:  # fmt: skip
    """The wanted column, the only described one, the first usual one, or the only usable one."""
    if wanted is not None:
        if wanted not in schema.names:
            got = f"{wanted!r}, and the columns {described(schema)}"
            raise SourceError(f"expected the name of a column, got {got}; give `--{kind}-column NAME`")
        return wanted
    named = next((name for name in usual if name in schema.names), None)
    if len(described_as) == 1:
        return described_as[0]
    if named is not None and (not described_as or named in described_as):
        return named
    if described_as:
        raise SourceError(f"expected one column of {kind}s, got {', '.join(described_as)}; give `--{kind}-column NAME`")
    return usable[0] if len(usable) == 1 else None


def _kind(features: Mapping[str, Any], name: str) -> object:
    feature = features.get(name)
    return feature.get("_type") if isinstance(feature, dict) else None


def _names(features: Mapping[str, Any], column: str | None) -> list[str] | None:
    """Names of a ClassLabel; a card of the Hub has them by number."""
    feature = features.get(column or "")
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict) and all(str(number) in names for number in range(len(names))):
        names = [names[str(number)] for number in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list) and names else None


def _holds_bytes(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        return any(field.name in ("bytes", "path") and _is_binary(field.type, field.name) for field in fields)
    return _is_binary(kind, "bytes")


def _is_binary(kind: "pa.DataType", name: str) -> bool:
    import pyarrow as pa

    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests: list[Callable[[Any], bool]] = [
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary
    ]  # fmt: skip
    texts: list[Callable[[Any], bool]] = [pa.types.is_string, pa.types.is_large_string] if name == "path" else []
    return any(test(plain) for test in (*tests, *texts))


def _holds_labels(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (
        pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating, pa.types.is_string, pa.types.is_large_string,
        pa.types.is_string_view,
    )  # fmt: skip
    return any(test(plain) for test in tests)
