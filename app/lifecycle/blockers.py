"""What stands in the way of a purge: who serves a thing, works with it, or needs it to be believed."""

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session

from app.datasets.tables import DatasetRow
from app.db.tables import Archivable
from app.deployments.desired import IS_WANTED
from app.deployments.tables import AttachmentRow, DeploymentRow, RevisionRow
from app.errors import Problem
from app.jobs import states
from app.jobs.tables import JobRow
from app.models.tables import ModelRow, VersionRow
from app.modules.tables import ModuleRow

MOST = 5
"""Names that one obstacle tells at most."""


def of(session: Session, row: Archivable) -> list[Problem]:
    """Everything that stands in the way, in the order in which to do something about it.

    Args:
        session: Of the row's workspace; what it sees of rows that refer to this one must not change any more
            when the answer is acted upon, see `app.lifecycle.purges`.
        row: A model without its versions, a version, a dataset or a module.
    """
    found = [*_in_use(row)]
    if isinstance(row, VersionRow):
        found += [*_served(session, row, RevisionRow.version_id == row.id), *_checked(row)]
        found += [*_jobs(session, row, or_(JobRow.target_version_id == row.id, JobRow.source_version_id == row.id))]
        found += [*_needed(session, row)]
    elif isinstance(row, DatasetRow):
        found += [*_jobs(session, row, JobRow.dataset_id == row.id)]
    elif isinstance(row, ModuleRow):
        attached = RevisionRow.attachments.any(AttachmentRow.module_id == row.id)
        found += [*_served(session, row, attached)]
    return found


def name_of(row: Archivable) -> str:
    """What people call it."""
    return row.ref if isinstance(row, VersionRow) else row.name if isinstance(row, ModelRow) else row.id


def _in_use(row: Archivable) -> Iterator[Problem]:
    set_archived = row.archived_at or (row.model.archived_at if isinstance(row, VersionRow) else None)
    if set_archived is None:
        name = name_of(row)
        yield Problem("", "not_archived", f"expected {name} to be archived, got it in use; archive it first")


def _served(session: Session, row: Archivable, where: ColumnElement[bool]) -> Iterator[Problem]:
    query = select(DeploymentRow.name).join(RevisionRow, IS_WANTED).where(DeploymentRow.deleted_at.is_(None), where)
    names = _some(session, query.order_by(DeploymentRow.name))
    if names:
        what, do = ("attached to", "detach it") if isinstance(row, ModuleRow) else ("served by", "delete that")
        detail = f"expected {name_of(row)} not to be served, got it {what} {names}; {do} first"
        yield Problem("", "served", detail)


def _checked(row: VersionRow) -> Iterator[Problem]:
    if row.lease_worker is not None:
        detail = f"expected {row.ref} at rest, got a worker that checks it at this moment; wait until it has"
        yield Problem("", "being_checked", detail)


def _jobs(session: Session, row: Archivable, where: ColumnElement[bool]) -> Iterator[Problem]:
    query = select(JobRow.id).where(JobRow.state.in_(states.LIVE), where)
    names = _some(session, query.order_by(JobRow.id))
    if names:
        detail = f"expected no job that needs {name_of(row)}, got {names}; cancel it, or wait for its end"
        yield Problem("", "needed_by_job", detail)


def _needed(session: Session, row: VersionRow) -> Iterator[Problem]:
    """A thin bundle is nothing without its source, and none can be proved without both networks."""
    either = or_(ModuleRow.target_version_id == row.id, ModuleRow.source_version_id == row.id)
    names = _some(session, select(ModuleRow.id).where(either, ModuleRow.purged_at.is_(None)).order_by(ModuleRow.id))
    if names:
        detail = f"expected no module that {row.ref} proves, got {names}; purge it first"
        yield Problem("", "needed_by_module", detail)


def _some(session: Session, query: Select[str]) -> str:
    names: Sequence[str] = session.scalars(query.limit(MOST + 1)).all()
    return ", ".join(names[:MOST]) + (" and more" if len(names) > MOST else "")
