"""Workspaces and their quotas. The operator creates them with the `pnc` command; HTTP reaches only the caller's own."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.access.tables import WorkspaceRow
from app.datasets.tables import DatasetRow
from app.db.isolation import workspace_of
from app.errors import AlreadyExists, NotFound, QuotaExceeded
from app.jobs import states
from app.jobs.tables import JobRow
from app.models.tables import VersionRow
from app.modules.tables import BundleRow, ModuleRow
from app.names import check_name
from app.store.tables import UploadRow

QUOTA_SECONDS = 60
"""Retry-After of a request over the quota: a job may have ended by then."""


def create(
    session: Session,
    name: str,
    *,
    max_bytes: int | None = None,
    max_jobs: int | None = None,
    requests_per_minute: int | None = None,
) -> WorkspaceRow:
    """Create an empty workspace.

    Args:
        session: A writing session that belongs to no workspace.
        name: Name of the workspace.
        max_bytes: Limit of stored bytes; None: no limit.
        max_jobs: Limit of jobs that have not ended; None: no limit.
        requests_per_minute: Limit of requests with one key; None: no limit.

    Raises:
        Invalid: the name is not valid.
        AlreadyExists: there is a workspace with this name.
    """
    check_name(name)
    if session.get(WorkspaceRow, name) is not None:
        raise AlreadyExists(f"expected a new name, got {name!r}, which is taken; choose another")
    row = WorkspaceRow(name=name, max_bytes=max_bytes, max_jobs=max_jobs, requests_per_minute=requests_per_minute)
    session.add(row)
    session.flush()
    return row


def list_workspaces(session: Session) -> Sequence[WorkspaceRow]:
    """All workspaces, sorted by name."""
    return session.scalars(select(WorkspaceRow).order_by(WorkspaceRow.name)).all()


def get(session: Session, name: str) -> WorkspaceRow:
    """One workspace.

    Raises:
        NotFound: there is no workspace with this name.
    """
    row = session.get(WorkspaceRow, name)
    if row is None:
        raise NotFound(f"expected a workspace, got none named {name!r:.80}; see `pnc workspaces list`")
    return row


def own(session: Session) -> WorkspaceRow:
    """The workspace that a session belongs to."""
    return get(session, workspace_of(session))


def stored_bytes(session: Session) -> int:
    """Bytes that count against the quota of the session's workspace.

    An object that two rows refer to counts twice. If shared objects counted once, the quota would reveal whether
    another workspace stores the same bytes.
    """
    named = select(VersionRow.key).union(select(DatasetRow.key))
    open_or_unused = UploadRow.key.is_(None) | UploadRow.key.not_in(named)
    bundles = select(func.sum(BundleRow.bytes)).where(BundleRow.module_id.in_(select(ModuleRow.id)))
    sums = (
        select(func.sum(UploadRow.bytes)).where(open_or_unused),
        select(func.sum(VersionRow.bytes)),
        select(func.sum(DatasetRow.bytes)),
        bundles,
    )
    return sum(int(session.scalar(query) or 0) for query in sums)


def live_jobs(session: Session) -> int:
    """The number of jobs of the session's workspace that have not ended."""
    query = select(func.count()).select_from(JobRow).where(JobRow.state.in_(states.LIVE))
    return session.scalar(query) or 0


def check_room(session: Session, more: int) -> None:
    """Check that the session's workspace may store `more` bytes.

    Raises:
        QuotaExceeded: the workspace would exceed its limit of bytes.
    """
    limit = _locked(session).max_bytes
    if limit is not None and (have := stored_bytes(session)) + more > limit:
        detail = f"expected at most {limit} bytes in this workspace, got {have} and {more} more; remove something first"
        raise QuotaExceeded(detail, QUOTA_SECONDS)


def check_jobs(session: Session) -> None:
    """Check that the session's workspace may have one more job.

    Raises:
        QuotaExceeded: the workspace has reached its limit of jobs.
    """
    limit = _locked(session).max_jobs
    if limit is not None and live_jobs(session) >= limit:
        detail = (
            f"expected at most {limit} jobs that have not ended in this workspace, got one more; wait until a job ends"
        )
        raise QuotaExceeded(detail, QUOTA_SECONDS)


def _locked(session: Session) -> WorkspaceRow:
    """The session's workspace, locked until the transaction ends: two requests cannot both use the last free bytes."""
    return session.get_one(WorkspaceRow, workspace_of(session), with_for_update=True)
