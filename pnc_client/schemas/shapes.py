"""Base classes and checks of the JSON types."""

import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, WithJsonSchema, model_validator

Item = TypeVar("Item")
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""Pattern of the names of models, datasets, deployments and keys."""
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")


def storable(value: Any) -> Any:
    """Return a JSON value after checking that all its strings can be stored.

    Raises:
        ValueError: a string holds NUL, which PostgreSQL refuses, or a lone surrogate, which UTF-8 cannot encode.
    """
    odd = next((text for text in _texts(value) if _UNSTORABLE.search(text)), None)
    if odd is not None:
        raise ValueError(
            f"expected text that can be stored, got {odd!r:.80}; remove \\u0000 and lone \\ud800 to \\udfff"
        )
    return value


def _texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value, including keys; a loop, because a body may be nested deeper than the call stack."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            rest += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            rest += item


class RequestBody(BaseModel):
    """Base class of request bodies; an unknown field is an error, so a misspelt name is not ignored."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    _storable = model_validator(mode="before")(storable)


class Archiving(RequestBody):
    """A request to archive or restore a resource."""

    archived: bool
    """True: archive, so that lists hide the resource and new work cannot use it; false: restore."""


class ResponseBody(BaseModel):
    """Base class of response bodies: read-only. The client ignores fields that a newer service adds."""

    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True, use_attribute_docstrings=True)


def known(values: Any) -> WithJsonSchema:
    """Document a response field as one of these values, but accept any string.

    A client must be able to read the response of a newer service that has further values.

    Args:
        values: A `Literal` of strings.
    """
    return WithJsonSchema({"type": "string", "enum": list(get_args(values))})


class Page(ResponseBody, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    """Items of the page."""
    has_more: bool
    """Whether another page follows."""
    next_cursor: str | None
    """Cursor of the next page, to be sent as `after`; null: this is the last page."""
