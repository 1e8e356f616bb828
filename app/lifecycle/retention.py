"""Retention: purges records that were archived for longer than their workspace's `retention_days`."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access import audit
from app.access.keys import Caller
from app.access.tables import WorkspaceRow
from app.datasets.tables import DatasetRow
from app.db import clock
from app.db.tables import Archivable
from app.errors import InUse, NotFound
from app.lifecycle import blockers, purges
from app.models.tables import ModelRow, VersionRow
from app.modules.tables import ModuleRow
from app.zoo import Zoo
from pnc_client.schemas.purges import Kind

log = logging.getLogger(__name__)
Table = type[ModuleRow] | type[DatasetRow] | type[VersionRow] | type[ModelRow]
_TABLES: dict[Kind, Table] = {"module": ModuleRow, "dataset": DatasetRow, "version": VersionRow, "model": ModelRow}
"""Tables in the order of purging: modules first, because they need versions and datasets."""
_WHO = "retention"


@dataclass(frozen=True)
class Due:
    """A record whose retention has ended."""

    workspace: str
    kind: Kind
    id: str
    name: str
    archived_at: datetime
    obstacles: tuple[str, ...] = ()
    """Blockers: why the record cannot be purged yet."""


def find(zoo: Zoo) -> list[Due]:
    """The records of all workspaces whose retention has ended, in the order in which they can be purged."""
    with zoo.database.read() as session:
        return [
            due
            for row in session.scalars(select(WorkspaceRow).where(WorkspaceRow.retention_days.is_not(None)))
            for due in _of_workspace(session, row)
        ]


def purge(zoo: Zoo, due: list[Due]) -> list[Due]:
    """Purge records, and return those that were purged: others have a blocker, or were restored since `find`."""
    return [one for one in due if _purge(zoo, one)]


def _of_workspace(session: Session, workspace: WorkspaceRow) -> Iterator[Due]:
    before = clock.now(session) - timedelta(days=workspace.retention_days or 0)
    for kind, table in _TABLES.items():
        is_due = (table.workspace == workspace.name) & (table.archived_at < before) & table.purged_at.is_(None)
        for row in session.scalars(select(table).where(is_due).order_by(table.id)):
            assert isinstance(row, Archivable)
            reasons = tuple(problem.detail for problem in purges.preview(session, row).obstacles)
            assert row.archived_at is not None
            yield Due(workspace.name, kind, row.id, blockers.name_of(row), row.archived_at, reasons)


def _purge(zoo: Zoo, due: Due) -> bool:
    caller = Caller(due.workspace, frozenset(), name=_WHO)
    table: type[Archivable] = _TABLES[due.kind]

    def still_due(session: Session) -> Archivable:
        row = session.get(table, due.id)
        if row is None or row.purged_at is not None or row.archived_at != due.archived_at:
            raise NotFound(f"{due.name}: expected a record that is still archived, got one that was restored or purged")
        return row

    try:
        purges.purge(zoo.seen_by(caller), still_due)
    except (InUse, NotFound) as error:
        log.info("retention cannot purge %s %s of workspace %s: %s", due.kind, due.name, due.workspace, error)
        return False
    log.info("retention has purged %s %s of workspace %s", due.kind, due.name, due.workspace)
    with zoo.database.write() as session:
        audit.note(
            session,
            caller,
            action=f"purge_{due.kind}",
            method="",
            path=due.name,
            address="",
            outcome="purged",
            request_id="",
        )
    return True
