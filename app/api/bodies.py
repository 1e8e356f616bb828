"""Large JSON bodies are read and validated on a thread. Bodies whose validation would take long are refused.

FastAPI reads and validates a body on the event loop, which blocks all other requests. Four megabytes of short lists
take most of a second, and several seconds if every list is invalid. `LargeBody.json` returns the validated object,
which FastAPI accepts in place of JSON.
"""

import json
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from app.process.threads import TEXTS

SMALL = 8 * 1024
"""Bytes of a body that is read on the event loop: handing it to a thread would take longer."""
MOST_VALUES = 150_000
"""Most commas of a body. A model may name 100,000 classes."""
MOST_MEMBERS = 1000
"""Most members of an object, and most items of a list that holds anything but text."""
_ADVICE = "see /openapi.json for its schema"


class Unreadable(HTTPException):
    """A large body does not validate.

    Args:
        errors: Errors in the form of pydantic's `ValidationError.errors()`.
    """

    def __init__(self, errors: list[Any]) -> None:
        super().__init__(422)
        self.errors = errors


class LargeBody(Request):
    """A request whose large body is read and validated on a thread."""

    def __init__(self, request: Request, field: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._field = field

    async def json(self) -> Any:
        """The body as JSON; a large body as the validated object.

        Raises:
            Unreadable: a large body does not validate.
        """
        raw = await self.body()
        if len(raw) <= SMALL or self._field is None:
            return await super().json()
        return await TEXTS.run(_checked, raw, self._field)


def _checked(raw: bytes, field: Any) -> Any:
    if raw.count(b",") > MOST_VALUES:
        raise Unreadable(_error(f"expected at most {MOST_VALUES:,} values, got more; {_ADVICE}"))
    value = json.loads(raw)
    _check_breadth(value)
    checked, errors = field.validate(value, {}, loc=("body",))
    if errors:
        raise Unreadable(errors)
    return checked


def _check_breadth(value: Any) -> None:
    """Limit the length of objects and lists, because each member can cause one validation error.

    Raises:
        Unreadable: an object or a list is too long.
    """
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            if len(item) > MOST_MEMBERS:
                raise Unreadable(_error(f"expected objects of at most {MOST_MEMBERS:,} members; {_ADVICE}"))
            rest += item.values()
        elif isinstance(item, list):
            others = [member for member in item if not isinstance(member, str)]
            if others and len(item) > MOST_MEMBERS:
                raise Unreadable(_error(f"expected lists of more than {MOST_MEMBERS:,} items to be text; {_ADVICE}"))
            rest += others


def _error(message: str) -> list[Any]:
    return [{"type": "value_error", "loc": ("body",), "msg": message, "input": None}]
