"""Text that both databases can store: PostgreSQL refuses the character NUL."""

from typing import Any

from sqlalchemy import Dialect, String
from sqlalchemy.types import TypeDecorator

NUL = "\0"
_INSTEAD = "\ufffd"


class Text(TypeDecorator[str]):
    """Text in which Unicode's replacement character takes the place of NUL.

    The API refuses NUL in requests. A worker may repeat text from a file in a message; a NUL there
    must not make the job fail on PostgreSQL.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace NUL."""
        return value.replace(NUL, _INSTEAD) if value is not None and NUL in value else value


def without_nul(value: Any) -> Any:
    """A JSON value with NUL replaced in all strings and keys."""
    if isinstance(value, str):
        return value.replace(NUL, _INSTEAD)
    if isinstance(value, dict):
        return {without_nul(key): without_nul(item) for key, item in value.items()}
    return [without_nul(item) for item in value] if isinstance(value, list | tuple) else value
