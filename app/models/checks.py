"""Checks of versions on labelled images: ask for one, claim it, record its result.

A version has at most one waiting check, `checking`, and the result of its newest check, `check`. Both are columns of
its row, whose lease protects a running check as it protected the validation.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.tables import DatasetRow
from app.db import archive, clock, leases
from app.db.leases import Lease
from app.errors import Invalid, InvalidTransition
from app.models import service as models
from app.models.service import Accuracy
from app.models.tables import VersionRow

MIN_IMAGES = 50
"""Images from which a check says something: the 95 % interval is then at most 27 points wide."""
MOST = 100
"""Datasets that a new version is compared with, and versions that a new dataset is compared with, newest first."""


def ask(session: Session, name: str, number: int, dataset: DatasetRow) -> VersionRow:
    """Ask for a check of a version; a waiting check on another dataset is replaced.

    Raises:
        NotFound: there is no such model or version.
        InvalidTransition: the version is not ready.
        Archived: the dataset is archived.
        Invalid: the dataset has too few images of the version's classes.
    """
    version = models.get_version(session, name, number)
    if version.status != "ready":
        raise InvalidTransition(f"{version.ref}: expected a version that is ready, got one that is {version.status}")
    archive.check_live(dataset)
    _check_images(version, dataset)
    _wait_for(version, dataset)
    return version


def ask_for_version(session: Session, version: VersionRow) -> None:
    """Ask for a check of a version that is ready now, unless one waits, if its workspace has a dataset for it."""
    dataset = None if version.checking else dataset_for(session, version.workspace, version.spec["classes"])
    if dataset is not None:
        _wait_for(version, dataset)


def ask_when_ready(session: Session, version: VersionRow, dataset: DatasetRow) -> None:
    """Ask for a check of a new version; it begins when the version is ready, and never if the version is rejected.

    Raises:
        Archived: the dataset is archived.
        Invalid: the dataset has too few images of the version's classes.
    """
    archive.check_live(dataset)
    _check_images(version, dataset)
    _wait_for(version, dataset)


def dataset_for(session: Session, workspace: str, classes: Sequence[str]) -> DatasetRow | None:
    """The newest dataset that has images of all of a network's classes; None: there is none."""
    query = (
        select(DatasetRow)
        .where(DatasetRow.workspace == workspace, DatasetRow.archived_at.is_(None))
        .where(DatasetRow.purged_at.is_(None))
        .order_by(DatasetRow.id.desc())
        .limit(MOST)
    )
    return next((row for row in session.scalars(query) if _has_all(row, classes)), None)


def ask_for_dataset(session: Session, dataset: DatasetRow) -> None:
    """Ask for checks of the workspace's versions that have none yet, and whose classes are all in a new dataset."""
    if not dataset.classes:
        return
    query = (
        select(VersionRow.id, VersionRow.spec)
        .where(VersionRow.workspace == dataset.workspace, VersionRow.status == "ready")
        .where(VersionRow.archived_at.is_(None), VersionRow.purged_at.is_(None))
        .where(VersionRow.check.is_(None), VersionRow.checking.is_(None))
        .order_by(VersionRow.id.desc())
        .limit(MOST)
    )
    found = [id for id, spec in session.execute(query) if _has_all(dataset, spec["classes"])]
    if found:  # locked in the order of the ids, as jobs lock versions: no deadlock
        rows = select(VersionRow).where(VersionRow.id.in_(found)).order_by(VersionRow.id).with_for_update()
        for version in session.scalars(rows):
            _wait_for(version, dataset)


def claim(session: Session, worker: str, seconds: int = 60) -> Lease | None:
    """Claim the oldest version whose check waits."""
    free = (VersionRow.status == "ready") & VersionRow.checking.is_not(None) & VersionRow.lease_worker.is_(None)
    claimed = leases.claim(session, VersionRow, free, worker, seconds)
    return None if claimed is None else claimed[0]


def finish(
    session: Session, lease: Lease, dataset_id: str, result: dict[str, Any], accuracy: Accuracy | None = None
) -> None:
    """Record the result of a check, and the accuracy if it was measured on all classes.

    Raises:
        LeaseLost: another worker has the version now.
    """
    version = leases.held(session, VersionRow, lease)
    version.check = {**result, "dataset": dataset_id, "checked_at": clock.now(session).isoformat()}
    if version.checking == dataset_id:  # a check on another dataset may have been asked for in the meantime
        version.checking = None
    leases.drop(version)
    session.flush()
    if accuracy is not None:
        models.note_accuracy(session, version.id, accuracy)


def crashed(session: Session, lease: Lease, reason: str) -> None:
    """Record that the process of a check died. It is not repeated: the next attempt would need as much memory.

    Raises:
        LeaseLost: another worker has the version now.
    """
    end_crashed(session, leases.held(session, VersionRow, lease), reason)


def end_crashed(session: Session, version: VersionRow, reason: str) -> None:
    """End the check of a locked version."""
    detail = f"expected a worker to check the images, got an attempt that died: {reason}; try a smaller dataset"
    version.check = {
        "outcome": "failed",
        "detail": detail,
        "dataset": version.checking,
        "checked_at": clock.now(session).isoformat(),
    }
    version.checking = None
    leases.drop(version)


def _check_images(version: VersionRow, dataset: DatasetRow) -> None:
    images = sum(dataset.counts.get(label, 0) for label in version.spec["classes"])
    if images < MIN_IMAGES:
        detail = (
            f"expected at least {MIN_IMAGES} labelled images of the classes of {version.ref}, got {images} in "
            f"{dataset.id}; give the classes the same names in both"
        )
        raise Invalid.at("/dataset", "too_few_images", detail)


def _wait_for(version: VersionRow, dataset: DatasetRow) -> None:
    """Have the next free worker check a version on a dataset."""
    version.checking, version.attempts = dataset.id, 0


def _has_all(dataset: DatasetRow, classes: Sequence[str]) -> bool:
    counts = [dataset.counts.get(name, 0) for name in classes]
    return bool(counts) and min(counts) > 0 and sum(counts) >= MIN_IMAGES
