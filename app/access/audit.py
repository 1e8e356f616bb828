"""What was done with which key: one row a request that changed something, or was refused."""

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.access.keys import Caller
from app.access.tables import AuditRow
from app.db import clock
from app.db.ids import new_id
from app.db.pages import Page, Window, page

KEPT = timedelta(days=400)
LONGEST = 500
"""Characters of a path that are kept."""


def note(
    session: Session,
    caller: Caller,
    *,
    action: str,
    method: str,
    path: str,
    address: str,
    outcome: str,
    request_id: str,
) -> None:
    """Write one row; neither bodies nor keys are ever part of it.

    Args:
        session: A writing session that belongs to no workspace.
        caller: Who asked.
        action: The operation's id.
        method: HTTP method.
        path: Without the query.
        address: Where it came from.
        outcome: Status, or the problem's code.
        request_id: By which logs tell of it.
    """
    session.add(
        AuditRow(
            id=new_id("aud"),
            workspace=caller.workspace,
            key_id=caller.key_id,
            who=caller.name,
            action=action,
            method=method,
            path=path[:LONGEST],
            address=address,
            outcome=outcome,
            request_id=request_id,
        )
    )


def list_entries(session: Session, window: Window, *, key_id: str | None = None) -> Page[AuditRow]:
    """What was done in the session's workspace, newest first; of one key or all."""
    query = select(AuditRow)
    if key_id is not None:
        query = query.where(AuditRow.key_id == key_id)
    return page(session, query, AuditRow.id, str, window)


def sweep(session: Session) -> None:
    """Forget what is older than a year and a month."""
    session.execute(delete(AuditRow).where(AuditRow.at < clock.now(session) - KEPT))
