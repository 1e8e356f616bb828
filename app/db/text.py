"""Text as both databases can keep it: PostgreSQL refuses the character NUL."""

from typing import Any

from sqlalchemy import Dialect, String
from sqlalchemy.types import TypeDecorator

NUL = "\0"
_INSTEAD = "\ufffd"


class Text(TypeDecorator[str]):
    """Any text, with Unicode's replacement character in place of NUL.

    The API refuses NUL in what people send. What a worker reads out of a file and repeats in a
    message must not end a job that is otherwise fine, on one database and not on the other.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace NUL, which is hardly ever there."""
        return value.replace(NUL, _INSTEAD) if value is not None and NUL in value else value


def without_nul(value: Any) -> Any:
    """A JSON value with NUL replaced in all its strings, keys included."""
    if isinstance(value, str):
        return value.replace(NUL, _INSTEAD)
    if isinstance(value, dict):
        return {without_nul(key): without_nul(item) for key, item in value.items()}
    return [without_nul(item) for item in value] if isinstance(value, list | tuple) else value
