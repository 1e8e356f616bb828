"""Rules for the names of models, aliases, deployments and classes."""

import re

from app.errors import Invalid
from pnc_client.schemas.shapes import NAME_PATTERN

ALIAS_PATTERN = r"^[a-z][a-z0-9._-]{0,62}$"
ID_PREFIXES = ("mdl_", "ver_")
"""Prefixes of ids that are accepted in place of a model's name."""
_NAME = re.compile(NAME_PATTERN.rstrip("$") + r"\Z")
_ALIAS = re.compile(ALIAS_PATTERN.rstrip("$") + r"\Z")


def check_name(name: str, pointer: str = "/name") -> str:
    """Return the name if it is valid.

    Raises:
        Invalid: the name holds other characters, or is too long.
    """
    return _check(_NAME, name, pointer, "letter or digit")


def check_model_name(name: str) -> str:
    """Return the name if it is valid and does not look like an id.

    Raises:
        Invalid: the name is malformed, or begins with a prefix of ids.
    """
    if check_name(name).startswith(ID_PREFIXES):
        detail = (
            f"expected a name that does not begin like an id ({', '.join(ID_PREFIXES)}), got {name!r}; choose another"
        )
        raise Invalid.at("/name", "invalid_name", detail)
    return name


def check_alias(alias: str, pointer: str = "path:alias") -> str:
    """Return the alias if it is valid. An alias begins with a letter, so that it is never a version's number.

    Raises:
        Invalid: the alias holds other characters, or is too long.
    """
    return _check(_ALIAS, alias, pointer, "letter")


def _check(pattern: re.Pattern[str], name: str, pointer: str, first: str) -> str:
    if not pattern.match(name):
        raise Invalid.at(
            pointer,
            "invalid_name",
            f"expected a {first}, then at most 62 lower-case letters, digits and . _ -, got {name!r:.80}",
        )
    return name
