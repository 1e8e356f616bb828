"""Tells whether a SQLite database has changed, so that idle loops need not ask it."""

import sqlite3
from contextlib import closing
from types import TracebackType
from typing import Self

from app.db.engine import Database


class Changes:
    """Commits of other connections since the last look. PostgreSQL cannot tell: there every look finds a change.

    SQLite counts the commits of other connections (`PRAGMA data_version`); a look costs some microseconds and takes no
    lock. Use one object in one thread.
    """

    def __init__(self, database: Database) -> None:
        url = database.engine.url
        self._connection = sqlite3.connect(url.database or ":memory:") if database.is_sqlite else None
        self._version = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._connection is not None:
            self._connection.close()

    def look(self) -> bool:
        """Whether another connection has committed since the last look; True if nobody can tell."""
        before, self._version = self._version, self._read()
        return self._connection is None or before is None or self._version != before

    def _read(self) -> int | None:
        if self._connection is None:
            return None
        try:
            with closing(self._connection.execute("PRAGMA data_version")) as rows:
                return int(rows.fetchone()[0])
        except sqlite3.Error:  # for instance, the file is locked by a restore
            return None
