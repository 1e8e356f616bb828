"""Names that people give, and references made of them."""

import re

from app.errors import Invalid
from pnc_client.schemas.shapes import NAME_PATTERN

ALIAS_PATTERN = r"^[a-z][a-z0-9._-]{0,62}$"
ID_PREFIXES = ("mdl_", "ver_")
"""How ids begin that stand where a model's name does."""
MAX_CLASS_NAME = 128
_NAME = re.compile(NAME_PATTERN.rstrip("$") + r"\Z")
_ALIAS = re.compile(ALIAS_PATTERN.rstrip("$") + r"\Z")


def check_name(name: str, pointer: str = "/name") -> str:
    """The name itself, when it is one.

    Raises:
        Invalid: it holds other characters, or is too long.
    """
    return _check(_NAME, name, pointer, "letter or digit")


def check_model_name(name: str) -> str:
    """The name itself, when it is one and cannot be taken for an id.

    Raises:
        Invalid: it is no name, or begins as ids do.
    """
    if check_name(name).startswith(ID_PREFIXES):
        detail = (
            f"expected a name that does not begin like an id ({', '.join(ID_PREFIXES)}), got {name!r}; choose another"
        )
        raise Invalid.at("/name", "invalid_name", detail)
    return name


def is_class_name(name: object) -> bool:
    """Whether this can name a class; the same rule as a network's own classes follow."""
    return isinstance(name, str) and 0 < len(name) <= MAX_CLASS_NAME and name.isprintable()


def check_alias(alias: str, pointer: str = "path:alias") -> str:
    """The alias itself, when it is one; it begins with a letter, so that it is never a version's number.

    Raises:
        Invalid: it holds other characters, or is too long.
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
