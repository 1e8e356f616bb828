"""An object that a row names, or is about to name, is not removed.

A row holds its object from the moment it is written to the end of its transaction, when others
can see it; whoever removes objects must first have the object for itself. On SQLite the one
write lock of the database does both. On PostgreSQL it is an advisory lock for each object, since
a lock for all of them would make heartbeats wait behind a slow disk.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.orm import Mapper, Session

from app.store.objects import Store

_SPACE = 0x706E63  # any fixed number; "pnc". Keeps these locks apart from other applications'
_HOLD = text("SELECT pg_advisory_xact_lock_shared(:space, hashtext(:key))")
_CLAIM = text("SELECT pg_try_advisory_xact_lock(:space, hashtext(:key))")


def hold_named(table: type[Any]) -> None:
    """Let every new or changed row of `table` hold the object that its column `key` names."""
    event.listen(table, "before_insert", _hold)
    event.listen(table, "before_update", _hold)


def claim(session: Session, key: str) -> bool:
    """Have an object for oneself until the transaction ends; False: somebody holds it."""
    if session.get_bind().dialect.name == "sqlite":
        return True
    return bool(session.scalar(_CLAIM, {"space": _SPACE, "key": key}))


def put_again(session: Session, store: Store, key: str, put: Callable[[], object]) -> None:
    """Put an object again, if it was removed as garbage in the moment before its row came to hold it.

    Args:
        session: It has just written the row, and commits it afterwards.
        store: Where the object was put before that.
        key: Of the object.
        put: Puts it.
    """
    session.flush()  # from here on the row holds its object
    if store.size(key) is None:
        put()


def _hold(_mapper: Mapper[Any], connection: Connection, row: Any) -> None:
    if row.key is None or connection.dialect.name == "sqlite":
        return
    if inspect(row).attrs.key.history.has_changes():
        connection.execute(_HOLD, {"space": _SPACE, "key": row.key})
