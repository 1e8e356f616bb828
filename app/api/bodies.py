"""Large JSON bodies are read on a thread of their own, and refused where they would be costly all the same.

FastAPI reads and checks a body on the event loop, which does nothing else meanwhile: four megabytes of short lists are
most of a second, and as many mistakes as they can hold are several. A body that is checked here goes on as the checked
object, which FastAPI takes as it is.
"""

import json
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from app.process.threads import TEXTS

SMALL = 8 * 1024
"""Bytes that are read at once: to hand them to a thread would take longer."""
MOST_VALUES = 150_000
"""Commas of a body; a model may name 100,000 classes."""
MOST_MEMBERS = 1000
"""Members of one object, and items of a list that holds anything but text."""
_ADVICE = "see /openapi.json for what a body holds"


class Unreadable(HTTPException):
    """A large body is not what the route takes.

    Args:
        errors: As pydantic lists them.
    """

    def __init__(self, errors: list[Any]) -> None:
        super().__init__(422)
        self.errors = errors


class LargeBody(Request):
    """A request whose body, if it is large, is read and checked on a thread."""

    def __init__(self, request: Request, field: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._field = field

    async def json(self) -> Any:
        """The body as JSON, or as the object that the route takes.

        Raises:
            Unreadable: the route takes another.
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
    """See that nothing is so broad that each of its parts could be a mistake to be told of.

    Raises:
        Unreadable: something is.
    """
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            if len(item) > MOST_MEMBERS:
                raise Unreadable(_error(f"expected objects of at most {MOST_MEMBERS:,} members; {_ADVICE}"))
            rest += item.values()
        elif isinstance(item, list):
            others = [one for one in item if not isinstance(one, str)]
            if others and len(item) > MOST_MEMBERS:
                raise Unreadable(_error(f"expected lists of more than {MOST_MEMBERS:,} items to be text; {_ADVICE}"))
            rest += others


def _error(message: str) -> list[Any]:
    return [{"type": "value_error", "loc": ("body",), "msg": message, "input": None}]
