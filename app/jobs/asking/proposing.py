"""Classes that a target can learn from the models of a workspace, and the source and dataset for chosen classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from app.datasets.tables import DatasetRow
from app.models import classes
from app.models import service as models
from app.models.tables import ModelRow, VersionRow
from pnc_core.errors import ConfigError

MOST_MODELS, MOST_DATASETS = 200, 200
"""Models and datasets that are looked at, newest first."""
MIN_IMAGES = 3
"""Images of a class from which a dataset counts as having it; see `pnc_core.config.MIN_IMAGES`."""


@dataclass(frozen=True)
class Learnable:
    """A class that a target lacks."""

    name: str
    versions: list[VersionRow] = field(default_factory=list)
    """Newest ready versions of the models that have it."""

    @property
    def sources(self) -> list[str]:
        """Names of the models that have it."""
        return [version.model.name for version in self.versions]


@dataclass(frozen=True)
class ProposedDataset:
    """A dataset for a job."""

    id: str
    old: int
    """Images of the target's classes."""
    new: int
    """Images of the chosen classes."""
    is_complete: bool
    """Whether every class has enough images."""
    name: str
    rows: int


def learnable(
    session: Session, target: str | None, chosen: Sequence[str], text: str, most: int
) -> tuple[list[Learnable], int]:
    """Classes of other models that a target lacks.

    Args:
        session: A session of the workspace.
        target: Reference of the target; None: nothing is left out.
        chosen: Classes that are chosen already; only models that have all of them count.
        text: Words that a name must hold.
        most: Number of classes in the result.

    Returns:
        The first classes, and the number of all that were found.
    """
    present = set(models.resolve(session, target).spec["classes"]) if target else set()
    found: dict[str, Learnable] = {}
    for version in _sources(session, target, text):
        names = classes.names_of(version)
        if not set(chosen) <= set(version.spec["classes"]):
            continue
        for name in names.search(text):
            if name.name not in present:
                found.setdefault(name.name, Learnable(name.name)).versions.append(version)
    return list(found.values())[:most], len(found)


def find(session: Session, target: str | None, text: str) -> str | None:
    """The class that a text means in the newest model that knows it; None: no model does."""
    for version in _sources(session, target, ""):
        try:
            return classes.names_of(version).find(text)
        except ConfigError:
            continue
    return None


def sources(session: Session, target: str, chosen: Sequence[str]) -> list[VersionRow]:
    """Versions that have all chosen classes, the most accurate first; versions without an accuracy come last."""
    wanted = set(chosen)
    having = [row for row in _sources(session, target, "") if wanted <= set(row.spec["classes"])]
    return sorted(having, key=lambda row: -(row.accuracy or 0.0))


def dataset(session: Session, target: VersionRow, chosen: Sequence[str]) -> ProposedDataset | None:
    """The dataset with images of most classes of the target and of the chosen ones; None: no dataset has any."""
    query = select(DatasetRow).where(DatasetRow.archived_at.is_(None), DatasetRow.purged_at.is_(None))
    old, best = list(target.spec["classes"]), None
    for row in session.scalars(query.order_by(DatasetRow.id.desc()).limit(MOST_DATASETS)):
        wanted = [row.counts.get(name, 0) for name in (*old, *chosen)]
        having = sum(count >= MIN_IMAGES for count in wanted)
        if not having or not sum(wanted[len(old) :]):
            continue
        key = (having, sum(wanted))
        if best is None or key > best[0]:
            best = key, row
    if best is None:
        return None
    (having, _), row = best
    counts = [sum(row.counts.get(name, 0) for name in names) for names in (old, chosen)]
    return ProposedDataset(row.id, counts[0], counts[1], having == len(old) + len(chosen), row.name, row.rows)


def _sources(session: Session, target: str | None, text: str) -> Iterator[VersionRow]:
    """The newest ready version of each model but the target's, newest model first."""
    ready = (
        select(func.max(VersionRow.number))
        .where(VersionRow.model_id == ModelRow.id, VersionRow.status == "ready", VersionRow.archived_at.is_(None))
        .correlate(ModelRow)
        .scalar_subquery()
    )
    query = select(VersionRow).join(ModelRow, (VersionRow.model_id == ModelRow.id) & (VersionRow.number == ready))
    query = query.where(ModelRow.archived_at.is_(None))
    for word in text.lower().split()[:8]:
        if not word.startswith("#"):
            query = query.where(func.lower(cast(VersionRow.spec, String)).contains(word, autoescape=True))
    own = models.resolve(session, target).model_id if target else None
    rows = session.scalars(query.order_by(ModelRow.id.desc()).limit(MOST_MODELS))
    return (row for row in rows if row.model_id != own)
