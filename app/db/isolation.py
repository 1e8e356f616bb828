"""Isolation of workspaces.

A session of a workspace adds the workspace to the conditions of every statement and to every new row. A query that
does not mention workspaces therefore finds no rows of other workspaces. Workers and the serving process use sessions
without a workspace, which see all rows.
"""

from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction, with_loader_criteria

from app.db.tables import DEFAULT, Owned

_WORKSPACE = "workspace"


class ZooSession(Session):
    """A session of one workspace, or of all workspaces."""


def confine(session: Session, workspace: str | None) -> None:
    """Restrict a session to rows of one workspace; None: no restriction."""
    session.info[_WORKSPACE] = workspace


def workspace_of(session: Session) -> str:
    """The workspace of a session; `DEFAULT` for a session of all workspaces."""
    return session.info.get(_WORKSPACE) or DEFAULT


def qualified(workspace: str, name: str) -> str:
    """A name that is unique among all workspaces: `workspace/name`, or the bare name in the workspace `DEFAULT`."""
    return name if workspace == DEFAULT else f"{workspace}/{name}"


def parted(name: str, workspace: str = DEFAULT) -> tuple[str, str]:
    """Split a qualified name into workspace and name. A bare name belongs to the given workspace."""
    other, _, bare = name.rpartition("/")
    return other or workspace, bare


@event.listens_for(ZooSession, "do_orm_execute")
def _narrow(state: ORMExecuteState) -> None:
    """Restrict a statement to the session's workspace. A refresh of a loaded row needs no restriction."""
    workspace = state.session.info.get(_WORKSPACE)
    if workspace is not None and not state.is_column_load:
        narrowed = with_loader_criteria(Owned, lambda owned: owned.workspace == workspace, include_aliases=True)
        state.statement = state.statement.options(narrowed)


@event.listens_for(ZooSession, "before_flush")
def _stamp(session: Session, _context: UOWTransaction, _instances: Any) -> None:
    workspace = session.info.get(_WORKSPACE)
    for row in session.new if workspace is not None else ():
        if isinstance(row, Owned):
            row.workspace = str(workspace)
