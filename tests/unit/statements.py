"""What is sent to the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from app.zoo import Zoo


@contextmanager
def counting(zoo: Zoo) -> Iterator[list[str]]:
    """The statements that the block sends."""
    sent: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(zoo.database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(zoo.database.engine, "before_cursor_execute", note)
