"""What all bodies have in common."""

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

Item = TypeVar("Item")


class Body(BaseModel):
    """A request's body; a field that is not known is an error, not a typo without effect."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Answer(BaseModel):
    """An answer's body, read off a row."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class Page(Answer, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    """The page's items."""
    has_more: bool
    """Whether another page follows."""
    next_cursor: str | None
    """Send it as `after` to get that page."""
