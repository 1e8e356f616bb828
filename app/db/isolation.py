"""Workspaces see nothing of each other.

A session that belongs to a workspace adds the condition to every statement by itself, whoever wrote it, and puts its
workspace on every new row. So a query that forgets about workspaces still cannot tell of another one's rows: they are
not there. Workers and the serving process work for all, with sessions that belong to none.
"""

from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction, with_loader_criteria

from app.db.tables import DEFAULT, Owned

_WORKSPACE = "workspace"


class ZooSession(Session):
    """A session of one workspace, or of all."""


def confine(session: Session, workspace: str | None) -> None:
    """Let a session see and make rows of this workspace alone; None: it belongs to none."""
    session.info[_WORKSPACE] = workspace


def workspace_of(session: Session) -> str:
    """The workspace that a session belongs to; of one that belongs to none, that of keyless days."""
    return session.info.get(_WORKSPACE) or DEFAULT


def qualified(workspace: str, name: str) -> str:
    """A name that is unique among all workspaces; in the one of keyless days it is the name itself."""
    return name if workspace == DEFAULT else f"{workspace}/{name}"


def parted(name: str, workspace: str = DEFAULT) -> tuple[str, str]:
    """Workspace and name that a qualified name is made of; a bare one is of the workspace that is given."""
    other, _, bare = name.rpartition("/")
    return other or workspace, bare


@event.listens_for(ZooSession, "do_orm_execute")
def _narrow(state: ORMExecuteState) -> None:
    """Refreshing what was found already is passed over; what belongs to it is not."""
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
