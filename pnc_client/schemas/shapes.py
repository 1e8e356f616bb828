"""What all bodies have in common."""

import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, WithJsonSchema, model_validator

Item = TypeVar("Item")
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""Names of models, datasets, deployments and keys."""
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")


def storable(value: Any) -> Any:
    """The JSON value itself, when all its strings can be stored.

    Raises:
        ValueError: one holds NUL, which PostgreSQL refuses, or half a surrogate pair, which UTF-8 cannot write.
    """
    odd = next((text for text in _texts(value) if _UNSTORABLE.search(text)), None)
    if odd is not None:
        raise ValueError(
            f"expected text that can be stored, got {odd!r:.80}; leave \\u0000 and lone \\ud800 to \\udfff out"
        )
    return value


def _texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value, keys included; a loop, since a body may nest deeper than calls can."""
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
    """A request's body; a field that is not known is an error, not a typo without effect."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    _storable = model_validator(mode="before")(storable)


class Archiving(RequestBody):
    """Whether something is put away."""

    archived: bool
    """True: out of the lists, and no new work; false: back again."""


class ResponseBody(BaseModel):
    """The body of an answer: read-only. The client ignores fields that a newer service adds."""

    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True, use_attribute_docstrings=True)


def known(values: Any) -> WithJsonSchema:
    """Describe a field of an answer as one of these values, and accept any string.

    A client must read the answer of a newer service that knows further values.

    Args:
        values: A `Literal` of strings.
    """
    return WithJsonSchema({"type": "string", "enum": list(get_args(values))})


class Page(ResponseBody, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    """The page's items."""
    has_more: bool
    """Whether another page follows."""
    next_cursor: str | None
    """Send it as `after` to get that page."""
