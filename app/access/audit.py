"""The audit log: one row for each request that changed something or was refused."""

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.access.keys import Caller
from app.access.tables import AuditRow
from app.db import clock
from app.db.ids import new_id
from app.db.pages import Page, Window, page

KEPT = timedelta(days=400)
"""Age at which a row is deleted."""
MAX_PATH = 500
"""Longer paths are cut to this number of characters."""


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
    """Write one row. Bodies and keys are never written.

    Args:
        session: A writing session that belongs to no workspace.
        caller: Caller of the request.
        action: Operation id in the OpenAPI document.
        method: HTTP method.
        path: Path of the URL, without the query.
        address: IP address of the client.
        outcome: HTTP status, or the code of the problem.
        request_id: Id of the request in the logs.
    """
    session.add(
        AuditRow(
            id=new_id("aud"),
            workspace=caller.workspace,
            key_id=caller.key_id,
            who=caller.name,
            action=action,
            method=method,
            path=path[:MAX_PATH],
            address=address,
            outcome=outcome,
            request_id=request_id,
        )
    )


def list_entries(session: Session, window: Window, *, key_id: str | None = None) -> Page[AuditRow]:
    """Rows of the session's workspace, newest first, of one key or of all keys."""
    query = select(AuditRow)
    if key_id is not None:
        query = query.where(AuditRow.key_id == key_id)
    return page(session, query, AuditRow.id, str, window)


def sweep(session: Session) -> None:
    """Delete rows older than `KEPT`."""
    session.execute(delete(AuditRow).where(AuditRow.at < clock.now(session) - KEPT))
