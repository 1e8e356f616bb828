"""Encryption of secrets that are in the database already.

Earlier releases stored secrets unencrypted, and operators may change the encryption key. `seal_all` encrypts every
secret with the newest key and removes readable copies. Each process that uses secrets calls it at its start.
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
"""SQLite's `user_version` of a file without readable secrets, including its free pages."""
_READABLE_ANSWER = '%"secret":"whsec_%'
"""SQL pattern of a stored answer that contains a readable secret; answers are stored for repeated requests."""
LOST = (
    "the secret could not be decrypted and was replaced; rotate it, give the new secret to the receiver, and enable "
    "the webhook"
)


def seal_all(zoo: Zoo, *, forget: bool = False) -> None:
    """Encrypt readable secrets, and encrypt again the secrets that an older key has encrypted.

    Args:
        zoo: The open zoo, with the newest database schema.
        forget: Replace secrets that no configured key decrypts, and disable their webhooks.

    Raises:
        Misconfigured: there is no key to encrypt with, or no key decrypts a stored secret.
    """
    database = zoo.database.of_all()
    with database.read() as session:
        needed = _needs_sealing(session)
    was_readable = False
    if needed:
        with database.write() as session:
            was_readable = _seal(session, forget=forget)
    if database.is_sqlite:
        _clean_file(database)
    elif was_readable:
        _clean_tables(database)


def seal_where_ready(zoo: Zoo) -> None:
    """Call `seal_all` if the database has the newest schema; for processes that do not migrate the database.

    Raises:
        Misconfigured: see `seal_all`.
    """
    if outdated(zoo.database) is None:
        seal_all(zoo)


def _needs_sealing(session: Session) -> bool:
    if session.scalar(_readable_answers().limit(1)) is not None:
        return True
    return any(
        not is_sealed(text) or not sealing.of(session).is_newest(text)
        for row in session.scalars(select(WebhookRow))
        for text in _texts(row)
    )


def _seal(session: Session, *, forget: bool) -> bool:
    """Encrypt every secret with the newest key; returns whether a secret was readable before."""
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
    return select(IdempotencyRow).where(IdempotencyRow.body.like(_READABLE_ANSWER))


def _clean_file(database: Database) -> None:
    """Rebuild SQLite's file once: free pages and the write-ahead log may still contain readable secrets."""
    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        if driver.execute("PRAGMA user_version").fetchone()[0] >= CLEAN:
            return
        driver.execute("PRAGMA query_only=OFF")
        driver.execute("VACUUM")
        driver.execute(f"PRAGMA user_version={CLEAN}")
        is_busy = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if is_busy:  # a reader keeps old pages in the log; the next start tries again
            driver.execute("PRAGMA user_version=0")
            log.warning("the database's log still contains readable secrets; the next start empties the log")


def _clean_tables(database: Database) -> None:
    """Remove PostgreSQL's old row versions. Archived logs and backups are left to the operator."""
    log.warning("secrets of webhooks were unencrypted until now; rotate each secret that a database backup may contain")
    try:
        with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            for table in (WebhookRow.__tablename__, IdempotencyRow.__tablename__):
                connection.exec_driver_sql(f"VACUUM (FULL) {table}")
    except SQLAlchemyError as error:
        log.warning(
            "old row versions with readable secrets could not be removed; run VACUUM FULL webhooks, idempotency_keys: "
            "%s",
            error,
        )
