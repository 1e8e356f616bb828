"""Queries of the list pages: search, filter, sort and count, one page at a time.

The number of queries of a function does not depend on the number of rows. The API uses the keyset pages of
`app.db.pages`, which do not shift while rows are added; the list pages need sorting and a total instead.
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
"""Value of `ListQuery.state` for archived rows."""
MOST = 100
"""Maximum rows of a page."""
_Target, _Source = aliased(VersionRow), aliased(VersionRow)
_TargetModel, _SourceModel = aliased(ModelRow), aliased(ModelRow)


@dataclass(frozen=True)
class ListQuery:
    """Search, order, filter and page of a list."""

    search: str = ""
    """Words that must all occur in the searched columns."""
    order: str = ""
    """Name of one of the list's orders; any other text: newest first."""
    state: str = ""
    """Only rows in this state, if the list has states; empty: all states."""
    start: int = 0
    """Index of the first row."""
    count: int = 25
    """Number of rows."""


@dataclass(frozen=True)
class Found(Generic[T]):
    """One page of a list, and the total number of rows."""

    rows: Sequence[T]
    total: int


@dataclass(frozen=True)
class ModelLine:
    """A model with its newest version; None: the model has no versions."""

    model: ModelRow
    version: VersionRow | None


def models(session: Session, list_query: ListQuery) -> Found[ModelLine]:
    """Models with their newest unarchived version; the search covers name, description and spec."""
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
    """Names of models with a ready version, newest first."""
    ready = select(VersionRow.model_id).where(VersionRow.status == "ready", VersionRow.archived_at.is_(None))
    query = select(ModelRow.name).where(ModelRow.archived_at.is_(None), ModelRow.id.in_(ready))
    query = query.where(*_words(ListQuery(search), ModelRow.name))
    return list(session.scalars(query.order_by(ModelRow.id.desc()).limit(most)))


def datasets(session: Session, list_query: ListQuery) -> Found[DatasetRow]:
    """Datasets; the search covers name, id and classes."""
    query = select(DatasetRow).where(*_in_list(DatasetRow, list_query))
    query = query.where(*_words(list_query, DatasetRow.name, DatasetRow.id, cast(DatasetRow.classes, String)))
    orders = {"name": DatasetRow.name.asc(), "large": DatasetRow.rows.desc(), "oldest": DatasetRow.id.asc()}
    rows, total = _part(session, query, orders.get(list_query.order, DatasetRow.id.desc()), DatasetRow.id, list_query)
    return Found([row for (row,) in rows], total)


def jobs(session: Session, list_query: ListQuery) -> Found[JobRow]:
    """Jobs; the search covers the id and the names of both models."""
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
    """Modules; the search covers id, classes and the names of both models."""
    query = select(ModuleRow).where(*_in_list(ModuleRow, list_query)).options(*MODULE_AS_SHOWN)
    if list_query.search:
        query = _with_models(query, ModuleRow.target_version_id, ModuleRow.source_version_id)
        columns = (ModuleRow.id, cast(ModuleRow.classes, String), _TargetModel.name, _SourceModel.name)
        query = query.where(*_words(list_query, *columns))
    order = ModuleRow.id.asc() if list_query.order == "oldest" else ModuleRow.id.desc()
    rows, total = _part(session, query, order, ModuleRow.id, list_query)
    return Found([row for (row,) in rows], total)


def deployments(session: Session, list_query: ListQuery) -> Found[tuple[DeploymentRow, RevisionRow]]:
    """Deployments with their desired revision; the search covers the names of deployment and target."""
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
    """The newest modules whose target or source is a version of the model."""
    versions = select(VersionRow.id).where(VersionRow.model_id == model.id)
    either = or_(ModuleRow.target_version_id.in_(versions), ModuleRow.source_version_id.in_(versions))
    unpurged = ModuleRow.purged_at.is_(None)
    return list(session.scalars(select(ModuleRow).where(either, unpurged).order_by(ModuleRow.id.desc()).limit(most)))


def fitting(session: Session, revision: RevisionRow, most: int) -> tuple[list[ModuleRow], int]:
    """The newest modules that can be attached to a revision's target, and the number of further such modules."""
    attached = [a.module_id for a in revision.attachments]
    fits = ModuleRow.target_fingerprint == revision.version.fingerprint
    attachable = fits & ModuleRow.archived_at.is_(None) & ModuleRow.id.not_in(attached)
    found = list(session.scalars(select(ModuleRow).where(attachable).order_by(ModuleRow.id.desc()).limit(most)))
    if len(found) < most:
        return found, 0
    return found, (session.scalar(select(func.count()).select_from(ModuleRow).where(attachable)) or 0) - most


def serving(session: Session, fingerprint: str, most: int = 50) -> list[tuple[DeploymentRow, RevisionRow]]:
    """Deployments whose target has this fingerprint, with their desired revisions."""
    query = (
        select(DeploymentRow, RevisionRow)
        .join(RevisionRow, IS_WANTED)
        .join(VersionRow, VersionRow.id == RevisionRow.version_id)
        .where(DeploymentRow.deleted_at.is_(None), VersionRow.fingerprint == fingerprint)
    )
    found = session.execute(query.order_by(DeploymentRow.id.desc()).limit(most))
    return [(deployment, revision) for deployment, revision in found]


def _in_list(table: type[Archivable], list_query: ListQuery) -> tuple[ColumnElement[bool], ...]:
    """Conditions for archived rows if the query asks for them, or else for unarchived rows; never purged rows."""
    archived = table.archived_at.is_not(None) if list_query.state == ARCHIVED else table.archived_at.is_(None)
    return archived, table.purged_at.is_(None)


def _newest_number() -> Any:
    """Number of a model's newest unarchived version, by one index lookup for each model."""
    other = aliased(VersionRow)
    usable = (other.model_id == ModelRow.id) & other.archived_at.is_(None) & other.purged_at.is_(None)
    return select(func.max(other.number)).where(usable).correlate(ModelRow).scalar_subquery()


def _with_models(query: Select[Any], target: Any, source: Any) -> Select[Any]:
    return (
        query.join(_Target, _Target.id == target)
        .join(_TargetModel, _TargetModel.id == _Target.model_id)
        .join(_Source, _Source.id == source)
        .join(_SourceModel, _SourceModel.id == _Source.model_id)
    )


def _words(list_query: ListQuery, *columns: Any) -> list[ColumnElement[bool]]:
    """Conditions that each word of the search occurs in one of the columns; case is ignored."""
    words = list_query.search.lower().split()[:8]
    return [or_(*(func.lower(column).contains(word, autoescape=True) for column in columns)) for word in words]


def _part(session: Session, query: Any, order: Any, key: Any, list_query: ListQuery) -> tuple[Sequence[Any], int]:
    total = session.scalar(select(func.count()).select_from(query.with_only_columns(key).subquery())) or 0
    window = (
        query.order_by(order, key.desc()).offset(max(list_query.start, 0)).limit(min(max(list_query.count, 1), MOST))
    )
    return session.execute(window).all(), total
