"""Retention: what a workspace keeps archived for longer than it wants to is purged, a thing at a time."""

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
from app.lifecycle import blockers as obstacles
from app.lifecycle import purges
from app.models.tables import ModelRow, VersionRow
from app.modules.tables import ModuleRow
from app.zoo import Zoo
from pnc_client.schemas.purges import Kind

log = logging.getLogger(__name__)
Table = type[ModuleRow] | type[DatasetRow] | type[VersionRow] | type[ModelRow]
_TABLES: dict[Kind, Table] = {"module": ModuleRow, "dataset": DatasetRow, "version": VersionRow, "model": ModelRow}
"""What needs others goes before them."""
_WHO = "retention"


@dataclass(frozen=True)
class Due:
    """Something whose time is over."""

    workspace: str
    kind: Kind
    id: str
    name: str
    archived_at: datetime
    obstacles: tuple[str, ...] = ()
    """Why it stays for now."""


def find(zoo: Zoo) -> list[Due]:
    """What has been archived for longer than its workspace keeps such things; an order in which it can go."""
    with zoo.database.read() as session:
        return [
            due
            for row in session.scalars(select(WorkspaceRow).where(WorkspaceRow.retention_days.is_not(None)))
            for due in _of_workspace(session, row)
        ]


def purge(zoo: Zoo, due: list[Due]) -> list[Due]:
    """Purge it; returns what really went, since some of it may be needed, or was restored meanwhile."""
    return [one for one in due if _purge(zoo, one)]


def _of_workspace(session: Session, workspace: WorkspaceRow) -> Iterator[Due]:
    before = clock.now(session) - timedelta(days=workspace.retention_days or 0)
    for kind, table in _TABLES.items():
        over = (table.workspace == workspace.name) & (table.archived_at < before) & table.purged_at.is_(None)
        for row in session.scalars(select(table).where(over).order_by(table.id)):
            assert isinstance(row, Archivable)
            reasons = tuple(problem.detail for problem in purges.preview(session, row).obstacles)
            assert row.archived_at is not None
            yield Due(workspace.name, kind, row.id, obstacles.name_of(row), row.archived_at, reasons)


def _purge(zoo: Zoo, due: Due) -> bool:
    caller = Caller(due.workspace, frozenset(), name=_WHO)
    table: type[Archivable] = _TABLES[due.kind]

    def still_due(session: Session) -> Archivable:
        row = session.get(table, due.id)
        if row is None or row.purged_at is not None or row.archived_at != due.archived_at:
            raise NotFound(f"{due.name}: expected it to be archived still, got it restored meanwhile")
        return row

    try:
        purges.purge(zoo.seen_by(caller), still_due)
    except (InUse, NotFound) as error:
        log.info("retention leaves %s %s of %s: %s", due.kind, due.name, due.workspace, error)
        return False
    log.info("retention has purged %s %s of %s", due.kind, due.name, due.workspace)
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
