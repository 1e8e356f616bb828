"""Locks that keep an object from being removed while a transaction writes a row that refers to it.

A written row holds a shared lock on its object until the transaction ends, after which other sessions
see the row. Removing an object needs an exclusive lock. On SQLite the database's write lock serves as
both. On PostgreSQL each object has an advisory lock. A single lock for all objects would make heartbeats
wait for a slow disk.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.orm import Mapper, Session

from app.store.objects import Store

_SPACE = 0x706E63  # an arbitrary fixed number, "pnc" in ASCII; separates these locks from those of other applications
_HOLD = text("SELECT pg_advisory_xact_lock_shared(:space, hashtext(:key))")
_CLAIM = text("SELECT pg_try_advisory_xact_lock(:space, hashtext(:key))")


def hold_named(table: type[Any]) -> None:
    """Let every new or changed row of a table lock the object in its column `key`."""
    event.listen(table, "before_insert", _hold)
    event.listen(table, "before_update", _hold)


def claim(session: Session, key: str) -> bool:
    """Lock an object exclusively until the transaction ends; False: another session holds it."""
    if session.get_bind().dialect.name == "sqlite":
        return True
    return bool(session.scalar(_CLAIM, {"space": _SPACE, "key": key}))


def put_again(session: Session, store: Store, key: str, put: Callable[[], object]) -> None:
    """Put an object again if it was removed as garbage just before its row locked it.

    Args:
        session: A session that has written the row and has not committed it.
        store: The store.
        key: Key of the object.
        put: Puts the object.
    """
    session.flush()  # the row locks its object here
    if store.size(key) is None:
        put()


def _hold(_mapper: Mapper[Any], connection: Connection, row: Any) -> None:
    if row.key is None or connection.dialect.name == "sqlite":
        return
    if inspect(row).attrs.key.history.has_changes():
        connection.execute(_HOLD, {"space": _SPACE, "key": row.key})
