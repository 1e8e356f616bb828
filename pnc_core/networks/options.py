"""Check the options of an architecture."""

from collections.abc import Sequence
from typing import TypeVar

from pnc_core.errors import ConfigError

MAX_WIDTH = 4096
Value = TypeVar("Value", bound=int | float | str)


def whole(name: str, value: object, least: int = 1, most: int = MAX_WIDTH) -> int:
    """A whole number within its bounds.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"options.{name}: expected an integer from {least} to {most}, got {value!r}")
    return value


def choice(name: str, value: Value, choices: Sequence[Value]) -> Value:
    """One of a few values.

    Raises:
        ConfigError: it is another one.
    """
    if isinstance(value, bool) or value not in choices:
        raise ConfigError(f"options.{name}: expected one of {list(choices)}, got {value!r}")
    return value


def flag(name: str, value: object) -> bool:
    """Yes or no.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"options.{name}: expected true or false, got {value!r}")
    return value
