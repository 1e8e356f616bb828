"""Count the SQL statements of a piece of work."""

from collections.abc import Callable

from sqlalchemy import event

from app.zoo import Zoo


class StatementCount:
    """Counts SQL statements within a `with` block, which gets a function that returns the number so far.

    Args:
        zoo: The zoo whose database is counted.
    """

    def __init__(self, zoo: Zoo) -> None:
        self._engine, self._count = zoo.database.engine, 0

    def __enter__(self) -> Callable[[], int]:
        event.listen(self._engine, "before_cursor_execute", self._add)
        return lambda: self._count

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._add)

    def _add(self, *_: object) -> None:
        self._count += 1
