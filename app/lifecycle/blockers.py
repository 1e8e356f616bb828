"""Blockers of a purge: deployments, jobs, checks, modules and compositions that need the record."""

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session

from app.compositions.tables import ENDED, CompositionModuleRow, CompositionRow
from app.datasets.tables import DatasetRow
from app.db.tables import Archivable
from app.deployments.desired import IS_WANTED
from app.deployments.tables import (
    AttachmentRow,
    CanaryModuleRow,
    CanaryRevisionRow,
    CanaryRow,
    DeploymentRow,
    RevisionRow,
)
from app.errors import Problem
from app.jobs import states
from app.jobs.tables import JobRow
from app.models.tables import ModelRow, VersionRow
from app.modules.tables import ModuleRow

MOST = 5
"""Largest number of names in one blocker."""


def of(session: Session, row: Archivable) -> list[Problem]:
    """All blockers of a record, in the order in which to remove them.

    Args:
        session: A session of the row's workspace. Before a purge the row must be locked, so that no new blocker can
            appear until the transaction ends, see `app.lifecycle.purges`.
        row: A model without its versions, a version, a dataset or a module.
    """
    found = [*_not_archived(row)]
    if isinstance(row, VersionRow):
        found += [*_served(session, row, RevisionRow.version_id == row.id, "served by", "delete that deployment")]
        found += [*_checked(row)]
        found += [*_jobs(session, row, or_(JobRow.target_version_id == row.id, JobRow.source_version_id == row.id))]
        found += [*_needed(session, row)]
        found += [*_compositions(session, row, CompositionRow.target_version_id == row.id)]
    elif isinstance(row, DatasetRow):
        found += [*_jobs(session, row, JobRow.dataset_id == row.id)]
        found += [*_compositions(session, row, CompositionRow.dataset_id == row.id)]
    elif isinstance(row, ModuleRow):
        attached = RevisionRow.attachments.any(AttachmentRow.module_id == row.id)
        member = CanaryRow.members.any(CanaryModuleRow.module_id == row.id)
        in_canary = RevisionRow.canary.has(CanaryRevisionRow.canary.has(member))
        found += [*_served(session, row, attached, "attached to", "detach it")]
        found += [*_served(session, row, in_canary, "in the canary of", "end that canary")]
        mine = CompositionRow.members.any(CompositionModuleRow.module_id == row.id)
        found += [*_compositions(session, row, mine)]
    return found


def name_of(row: Archivable) -> str:
    """The name of a record for people: a version's reference, a model's name, or an id."""
    return row.ref if isinstance(row, VersionRow) else row.name if isinstance(row, ModelRow) else row.id


def _not_archived(row: Archivable) -> Iterator[Problem]:
    archived_at = row.archived_at or (row.model.archived_at if isinstance(row, VersionRow) else None)
    if archived_at is None:
        name = name_of(row)
        yield Problem("", "not_archived", f"expected {name} to be archived, got it not archived; archive it first")


def _served(session: Session, row: Archivable, where: ColumnElement[bool], how: str, action: str) -> Iterator[Problem]:
    query = select(DeploymentRow.name).join(RevisionRow, IS_WANTED).where(DeploymentRow.deleted_at.is_(None), where)
    names = _some(session, query.order_by(DeploymentRow.name))
    if names:
        detail = f"expected {name_of(row)} not to be served, got it {how} {names}; {action} first"
        yield Problem("", "served", detail)


def _checked(row: VersionRow) -> Iterator[Problem]:
    if row.lease_worker is not None:
        detail = f"expected that no worker checks {row.ref}, got one that does; wait until the check ends"
        yield Problem("", "being_checked", detail)


def _jobs(session: Session, row: Archivable, where: ColumnElement[bool]) -> Iterator[Problem]:
    query = select(JobRow.id).where(JobRow.state.in_(states.LIVE), where)
    names = _some(session, query.order_by(JobRow.id))
    if names:
        detail = f"expected no job that needs {name_of(row)}, got {names}; cancel the job, or wait until it ends"
        yield Problem("", "needed_by_job", detail)


def _compositions(session: Session, row: Archivable, where: ColumnElement[bool]) -> Iterator[Problem]:
    query = select(CompositionRow.id).where(CompositionRow.state.not_in(ENDED), where)
    names = _some(session, query.order_by(CompositionRow.id))
    if names:
        detail = f"expected no waiting or running composition that needs {name_of(row)}, got {names}; cancel it first"
        yield Problem("", "needed_by_composition", detail)


def _needed(session: Session, row: VersionRow) -> Iterator[Problem]:
    """Modules of a version: a thin bundle needs its source, and verifying a bundle needs both networks."""
    either = or_(ModuleRow.target_version_id == row.id, ModuleRow.source_version_id == row.id)
    names = _some(session, select(ModuleRow.id).where(either, ModuleRow.purged_at.is_(None)).order_by(ModuleRow.id))
    if names:
        detail = f"expected no module that needs {row.ref}, got {names}; purge the module first"
        yield Problem("", "needed_by_module", detail)


def _some(session: Session, query: Select[str]) -> str:
    names: Sequence[str] = session.scalars(query.limit(MOST + 1)).all()
    return ", ".join(names[:MOST]) + (" and more" if len(names) > MOST else "")
