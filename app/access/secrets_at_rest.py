"""Secrets in the database are encrypted with the newest key, those of earlier versions as well, and no copy is left.

A process that works with secrets calls `seal_all` when it starts.
"""

import logging
from collections.abc import Iterator

from sqlalchemy import Select, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import sealing
from app.db.engine import Database, outdated
from app.db.sealing import is_sealed
from app.db.tables import IdempotencyRow
from app.errors import Misconfigured
from app.webhooks import service as webhooks
from app.webhooks.tables import WebhookRow
from app.zoo import Zoo

log = logging.getLogger(__name__)
CLEAN = 1
"""SQLite's `user_version` of a file that never held, or no longer holds, a readable secret."""
_HELD = '%"secret":"whsec_%'
"""An answer that shows a secret, as it was kept for repeated requests."""
LOST = "its secret could not be read and was replaced; rotate it, give the receiver the new one, and enable it"


def seal_all(zoo: Zoo, *, forget: bool = False) -> None:
    """Encrypt what is readable, and anew what an older key has sealed.

    Args:
        zoo: The open zoo, at the newest revision.
        forget: Replace secrets that no key opens, and disable their webhooks.

    Raises:
        Misconfigured: there is no key for what is to be sealed, or none that opens what is.
    """
    database = zoo.database.of_all()
    with database.read() as session:
        todo = _is_todo(session)
    was_readable = False
    if todo:
        with database.write() as session:
            was_readable = _seal(session, forget=forget)
    if database.is_sqlite:
        _clean_file(database)
    elif was_readable:
        _clean_tables(database)


def seal_where_ready(zoo: Zoo) -> None:
    """`seal_all` for a process that leaves the schema to others, and waits for them.

    Raises:
        Misconfigured: see `seal_all`.
    """
    if outdated(zoo.database) is None:
        seal_all(zoo)


def _is_todo(session: Session) -> bool:
    if session.scalar(_readable_answers().limit(1)) is not None:
        return True
    return any(
        not is_sealed(text) or not sealing.of(session).is_newest(text)
        for row in session.scalars(select(WebhookRow))
        for text in _texts(row)
    )


def _seal(session: Session, *, forget: bool) -> bool:
    """Seal everything; says whether something was readable before."""
    sealer, was_readable = sealing.of(session), False
    for row in session.scalars(select(WebhookRow).with_for_update()).all():
        was_readable |= not all(is_sealed(text) for text in _texts(row))
        try:
            row.sealed = _sealed_anew(sealer, row.sealed)
            row.sealed_old = None if row.sealed_old is None else _sealed_anew(sealer, row.sealed_old)
        except Misconfigured:
            if not forget:
                raise
            row.sealed, row.sealed_old = sealer.seal(webhooks.new_secret()), None
            row.enabled, row.problem = False, LOST
    for answer in session.scalars(_readable_answers().with_for_update()).all():
        answer.body, was_readable = sealer.seal(answer.body), True
    return was_readable


def _sealed_anew(sealer: sealing.Sealer, text: str) -> str:
    if is_sealed(text) and sealer.is_newest(text):
        return text
    return sealer.seal(sealer.open(text) if is_sealed(text) else text)


def _texts(row: WebhookRow) -> Iterator[str]:
    yield row.sealed
    if row.sealed_old is not None:
        yield row.sealed_old


def _readable_answers() -> Select[IdempotencyRow]:
    return select(IdempotencyRow).where(IdempotencyRow.body.like(_HELD))


def _clean_file(database: Database) -> None:
    """Build SQLite's file anew once, so that no page that was freed, and no log, holds what was readable."""
    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        if driver.execute("PRAGMA user_version").fetchone()[0] >= CLEAN:
            return
        driver.execute("PRAGMA query_only=OFF")
        driver.execute("VACUUM")
        driver.execute(f"PRAGMA user_version={CLEAN}")
        is_busy = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if is_busy:  # somebody reads just now: the log still holds old pages, and the next start tries again
            driver.execute("PRAGMA user_version=0")
            log.warning("the database's log still holds earlier secrets; it is emptied at the next start")


def _clean_tables(database: Database) -> None:
    """PostgreSQL keeps old rows until they are swept up; its archived logs and backups are the operator's."""
    log.warning("secrets of webhooks were readable until now; rotate those that backups of the database may hold")
    try:
        with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            for table in (WebhookRow.__tablename__, IdempotencyRow.__tablename__):
                connection.exec_driver_sql(f"VACUUM (FULL) {table}")
    except SQLAlchemyError as error:
        log.warning("old rows of webhooks could not be removed; run VACUUM FULL webhooks, idempotency_keys: %s", error)
