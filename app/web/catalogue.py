"""Lists for people: searched, filtered, sorted, and counted, a page at a time.

Every function makes the same number of queries however much there is. Programs use the
keyset pages of `app.db.pages`, which never shift; people want to sort and to see how many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, String, cast, func, or_, select
from sqlalchemy.orm import Session, aliased

from app.datasets.tables import DatasetRow
from app.db.tables import Archivable
from app.deployments.desired import IS_WANTED
from app.deployments.tables import DeploymentRow, RevisionRow
from app.jobs import states
from app.jobs.service import AS_SHOWN as JOB_AS_SHOWN
from app.jobs.tables import JobRow
from app.models.tables import ModelRow, VersionRow
from app.modules.service import AS_SHOWN as MODULE_AS_SHOWN
from app.modules.tables import ModuleRow

T = TypeVar("T")
ARCHIVED = "archived"
"""State of a shelf with what was put away."""
MOST = 100
"""Rows of one page at most."""
_Target, _Source = aliased(VersionRow), aliased(VersionRow)
_TargetModel, _SourceModel = aliased(ModelRow), aliased(ModelRow)


@dataclass(frozen=True)
class ListQuery:
    """Which part of a list."""

    search: str = ""
    """Text that names hold; every word must be found."""
    order: str = ""
    """One of the list's orders; another one means the newest first."""
    state: str = ""
    """Only rows of this state, where a list has states."""
    start: int = 0
    count: int = 25


@dataclass(frozen=True)
class Found(Generic[T]):
    """One part of a list, and how long the list is."""

    rows: Sequence[T]
    total: int


@dataclass(frozen=True)
class ModelLine:
    """A model with its newest version, if it has one."""

    model: ModelRow
    version: VersionRow | None


def models(session: Session, list_query: ListQuery) -> Found[ModelLine]:
    """Models with their newest version that is not archived; found by name, description, architecture or class."""
    newest = (VersionRow.model_id == ModelRow.id) & (VersionRow.number == _newest_number())
    query = select(ModelRow, VersionRow).outerjoin(VersionRow, newest).where(*_in_list(ModelRow, list_query))
    query = query.where(*_words(list_query, ModelRow.name, ModelRow.description, cast(VersionRow.spec, String)))
    if list_query.state and list_query.state != ARCHIVED:
        query = query.where(VersionRow.status == list_query.state)
    orders = {
        "name": ModelRow.name.asc(),
        "large": VersionRow.parameters.desc().nulls_last(),
        "small": VersionRow.parameters.asc().nulls_last(),
        "accurate": VersionRow.accuracy.desc().nulls_last(),
        "oldest": ModelRow.id.asc(),
    }
    rows, total = _part(session, query, orders.get(list_query.order, ModelRow.id.desc()), ModelRow.id, list_query)
    return Found([ModelLine(model, version) for model, version in rows], total)


def ready_names(session: Session, search: str, most: int = 50) -> list[str]:
    """Names of models with a version that can be used, newest first."""
    ready = select(VersionRow.model_id).where(VersionRow.status == "ready", VersionRow.archived_at.is_(None))
    query = select(ModelRow.name).where(ModelRow.archived_at.is_(None), ModelRow.id.in_(ready))
    query = query.where(*_words(ListQuery(search), ModelRow.name))
    return list(session.scalars(query.order_by(ModelRow.id.desc()).limit(most)))


def datasets(session: Session, list_query: ListQuery) -> Found[DatasetRow]:
    """Datasets; found by name, id or class."""
    query = select(DatasetRow).where(*_in_list(DatasetRow, list_query))
    query = query.where(*_words(list_query, DatasetRow.name, DatasetRow.id, cast(DatasetRow.classes, String)))
    orders = {"name": DatasetRow.name.asc(), "large": DatasetRow.rows.desc(), "oldest": DatasetRow.id.asc()}
    rows, total = _part(session, query, orders.get(list_query.order, DatasetRow.id.desc()), DatasetRow.id, list_query)
    return Found([row for (row,) in rows], total)


def jobs(session: Session, list_query: ListQuery) -> Found[JobRow]:
    """Jobs; found by id or by the names of both models."""
    query = select(JobRow).options(*JOB_AS_SHOWN)
    if list_query.search:
        query = _with_models(query, JobRow.target_version_id, JobRow.source_version_id)
        query = query.where(*_words(list_query, JobRow.id, _TargetModel.name, _SourceModel.name))
    if list_query.state == "live":
        query = query.where(JobRow.state.in_(states.LIVE))
    elif list_query.state:
        query = query.where(JobRow.state == list_query.state)
    order = JobRow.id.asc() if list_query.order == "oldest" else JobRow.id.desc()
    rows, total = _part(session, query, order, JobRow.id, list_query)
    return Found([row for (row,) in rows], total)


def modules(session: Session, list_query: ListQuery) -> Found[ModuleRow]:
    """Modules; found by id, class or the names of both models."""
    query = select(ModuleRow).where(*_in_list(ModuleRow, list_query)).options(*MODULE_AS_SHOWN)
    if list_query.search:
        query = _with_models(query, ModuleRow.target_version_id, ModuleRow.source_version_id)
        columns = (ModuleRow.id, cast(ModuleRow.classes, String), _TargetModel.name, _SourceModel.name)
        query = query.where(*_words(list_query, *columns))
    order = ModuleRow.id.asc() if list_query.order == "oldest" else ModuleRow.id.desc()
    rows, total = _part(session, query, order, ModuleRow.id, list_query)
    return Found([row for (row,) in rows], total)


def deployments(session: Session, list_query: ListQuery) -> Found[tuple[DeploymentRow, RevisionRow]]:
    """Deployments with what they shall serve; found by their name or their target's."""
    query = (
        select(DeploymentRow, RevisionRow)
        .join(RevisionRow, IS_WANTED)
        .join(VersionRow, VersionRow.id == RevisionRow.version_id)
        .join(ModelRow, ModelRow.id == VersionRow.model_id)
        .where(DeploymentRow.deleted_at.is_(None), *_words(list_query, DeploymentRow.name, ModelRow.name))
    )
    orders = {"name": DeploymentRow.name.asc(), "oldest": DeploymentRow.id.asc()}
    rows, total = _part(
        session, query, orders.get(list_query.order, DeploymentRow.id.desc()), DeploymentRow.id, list_query
    )
    return Found([(deployment, revision) for deployment, revision in rows], total)


def lineage(session: Session, model: ModelRow, most: int = 50) -> list[ModuleRow]:
    """The newest modules that were cloned into or from any version of a model."""
    versions = select(VersionRow.id).where(VersionRow.model_id == model.id)
    either = or_(ModuleRow.target_version_id.in_(versions), ModuleRow.source_version_id.in_(versions))
    there = ModuleRow.purged_at.is_(None)
    return list(session.scalars(select(ModuleRow).where(either, there).order_by(ModuleRow.id.desc()).limit(most)))


def fitting(session: Session, wanted: RevisionRow, most: int) -> tuple[list[ModuleRow], int]:
    """The newest modules that could be attached to what a revision serves, and how many more there are."""
    attached = [a.module_id for a in wanted.attachments]
    fits = ModuleRow.target_fingerprint == wanted.version.fingerprint
    there = fits & ModuleRow.archived_at.is_(None) & ModuleRow.id.not_in(attached)
    found = list(session.scalars(select(ModuleRow).where(there).order_by(ModuleRow.id.desc()).limit(most)))
    if len(found) < most:
        return found, 0
    return found, (session.scalar(select(func.count()).select_from(ModuleRow).where(there)) or 0) - most


def serving(session: Session, fingerprint: str, most: int = 50) -> list[tuple[DeploymentRow, RevisionRow]]:
    """Deployments that serve the network with this fingerprint."""
    query = (
        select(DeploymentRow, RevisionRow)
        .join(RevisionRow, IS_WANTED)
        .join(VersionRow, VersionRow.id == RevisionRow.version_id)
        .where(DeploymentRow.deleted_at.is_(None), VersionRow.fingerprint == fingerprint)
    )
    found = session.execute(query.order_by(DeploymentRow.id.desc()).limit(most))
    return [(deployment, revision) for deployment, revision in found]


def _in_list(table: type[Archivable], list_query: ListQuery) -> tuple[ColumnElement[bool], ...]:
    """What is in use, or what was put away."""
    archived = table.archived_at.is_not(None) if list_query.state == ARCHIVED else table.archived_at.is_(None)
    return archived, table.purged_at.is_(None)


def _newest_number() -> Any:
    """Number of a model's newest version that is in use; among 5,000 models it costs a look into an index each."""
    other = aliased(VersionRow)
    mine = (other.model_id == ModelRow.id) & other.archived_at.is_(None) & other.purged_at.is_(None)
    return select(func.max(other.number)).where(mine).correlate(ModelRow).scalar_subquery()


def _with_models(query: Select[Any], target: Any, source: Any) -> Select[Any]:
    return (
        query.join(_Target, _Target.id == target)
        .join(_TargetModel, _TargetModel.id == _Target.model_id)
        .join(_Source, _Source.id == source)
        .join(_SourceModel, _SourceModel.id == _Source.model_id)
    )


def _words(list_query: ListQuery, *columns: Any) -> list[ColumnElement[bool]]:
    """Every word of the search is in one of the columns, whatever its case."""
    words = list_query.search.lower().split()[:8]
    return [or_(*(func.lower(column).contains(word, autoescape=True) for column in columns)) for word in words]


def _part(session: Session, query: Any, order: Any, key: Any, list_query: ListQuery) -> tuple[Sequence[Any], int]:
    total = session.scalar(select(func.count()).select_from(query.with_only_columns(key).subquery())) or 0
    window = (
        query.order_by(order, key.desc()).offset(max(list_query.start, 0)).limit(min(max(list_query.count, 1), MOST))
    )
    return session.execute(window).all(), total
