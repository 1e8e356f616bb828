"""Inspections as workers run them: claim, heartbeat, parts and end. Every write checks the worker's lease.

A part holds the facts of consecutive rows. Parts are written as they are found, so that an inspection that is
interrupted goes on after them, on any worker.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.datasets.oddities import warnings_of
from app.datasets.tables import DatasetRow, PartRow, SampleRow
from app.db import leases
from app.db.leases import Lease
from app.db.pages import Page, Window, check_limit, decode, encode
from app.settings import MAX_ATTEMPTS

SHOWN_FAULTS = 10


def claim(session: Session, worker: str, seconds: int = 60) -> Lease | None:
    """Claim the oldest dataset that waits for its inspection."""
    free = (
        (DatasetRow.inspection == "waiting")
        & DatasetRow.lease_worker.is_(None)
        & DatasetRow.archived_at.is_(None)
        & DatasetRow.purged_at.is_(None)
    )
    claimed = leases.claim(session, DatasetRow, free, worker, seconds)
    return None if claimed is None else claimed[0]


def heartbeat(session: Session, lease: Lease) -> str | None:
    """Renew the lease; returns `cancel` if the dataset was archived.

    Raises:
        LeaseLost: another worker has the dataset now.
    """
    row = leases.renew(session, DatasetRow, lease)
    return None if row.archived_at is None else "cancel"


def add_part(session: Session, lease: Lease, first: int, rows: int, content: bytes) -> None:
    """Keep the facts of consecutive rows.

    Args:
        session: A writing session.
        lease: Lease of the dataset.
        first: Number of the first row.
        rows: Number of rows.
        content: Their facts, see `app.datasets.inspecting.pack`.

    Raises:
        LeaseLost: another worker has the dataset now.
    """
    row = leases.held(session, DatasetRow, lease)
    session.merge(PartRow(dataset_id=lease.id, first=first, rows=rows, content=content))
    row.inspected += rows


def parts(session: Session, dataset_id: str) -> list[tuple[int, int]]:
    """First rows and numbers of rows of the parts that are kept, in order."""
    query = select(PartRow.first, PartRow.rows).where(PartRow.dataset_id == dataset_id).order_by(PartRow.first)
    return [(first, rows) for first, rows in session.execute(query)]


def part(session: Session, dataset_id: str, first: int) -> bytes:
    """The content of one part."""
    return session.scalars(
        select(PartRow.content).where(PartRow.dataset_id == dataset_id, PartRow.first == first)
    ).one()


def finish(
    session: Session, lease: Lease, findings: dict[str, Any], counts: Mapping[str, int],
    faults: Sequence[tuple[int, str, str]], samples: Mapping[int, bytes],
) -> None:  # fmt: skip
    """End an inspection.

    Args:
        session: A writing session.
        lease: Lease of the dataset.
        findings: Numbers of `Survey`, with names of classes.
        counts: Images by class that can be decoded.
        faults: Row, name and reason of each image that cannot be decoded, in order.
        samples: Picture by label.

    Raises:
        LeaseLost: another worker has the dataset now.
    """
    row = leases.held(session, DatasetRow, lease)
    first = [{"row": number, "name": name, "reason": reason} for number, name, reason in faults[:SHOWN_FAULTS]]
    findings = {**findings, "unreadable": len(faults), "first_unreadable": first}
    findings["warnings"] = warnings_of(row.classes, counts, findings, row.rows)
    row.findings, row.counts, row.unreadable = findings, dict(counts), len(faults)
    row.faults = zlib.compress(json.dumps(faults).encode()) if faults else None
    row.inspection, row.inspected, row.problem = "done", row.rows, None
    session.execute(delete(SampleRow).where(SampleRow.dataset_id == lease.id))
    session.add_all(SampleRow(dataset_id=lease.id, label=label, picture=made) for label, made in samples.items())
    _end(session, row)


def fail(session: Session, lease: Lease, problem: dict[str, Any]) -> None:
    """End an inspection that cannot succeed; jobs may still use the dataset.

    Raises:
        LeaseLost: another worker has the dataset now.
    """
    row = leases.held(session, DatasetRow, lease)
    _fail(session, row, problem)


def release(session: Session, lease: Lease) -> None:
    """Give a dataset back; another worker goes on with it.

    Raises:
        LeaseLost: another worker has the dataset now.
    """
    leases.drop(leases.held(session, DatasetRow, lease))


def crashed(session: Session, lease: Lease, reason: str, most: int = MAX_ATTEMPTS) -> None:
    """Record that the process of an inspection died; one attempt is used.

    Raises:
        LeaseLost: another worker has the dataset now.
    """
    row = leases.held(session, DatasetRow, lease)
    leases.count_attempt(row)
    _fail_if_hopeless(session, row, reason, most)


def sweep(session: Session, most: int = MAX_ATTEMPTS) -> int:
    """Take datasets back from dead workers, and return their number."""
    rows = leases.take_back(session, DatasetRow)
    for row in rows:
        _fail_if_hopeless(session, row, "its worker stopped sending heartbeats", most)
    return len(rows)


def faults_of(row: DatasetRow) -> list[tuple[int, str, str]]:
    """Row, name and reason of each image that cannot be decoded."""
    return [] if row.faults is None else [tuple(fault) for fault in json.loads(zlib.decompress(row.faults))]


def unreadable(row: DatasetRow, window: Window) -> Page[dict[str, Any]]:
    """Images that cannot be decoded, in the order of the rows.

    Raises:
        Invalid: the cursor is malformed, or the limit is out of range.
    """
    check_limit(window.limit)
    last = -1 if window.after is None else decode(window.after, int)
    rest = [fault for fault in faults_of(row) if fault[0] > last]
    data = [{"row": number, "name": name, "reason": reason} for number, name, reason in rest[: window.limit]]
    has_more = len(rest) > window.limit
    return Page(data, has_more, encode(rest[window.limit - 1][0]) if has_more else None)


def samples(session: Session, dataset_id: str, most: int | None = None) -> dict[int, bytes]:
    """Pictures of samples by label, of the first classes.

    Args:
        session: A session.
        dataset_id: Id of the dataset, which the session has read.
        most: Classes; None: all that have samples.
    """
    query = select(SampleRow.label, SampleRow.picture).where(SampleRow.dataset_id == dataset_id).limit(most)
    return {row.label: row.picture for row in session.execute(query.order_by(SampleRow.label))}


def forget(session: Session, row: DatasetRow) -> None:
    """Delete all results of an inspection, for a purge."""
    for table in (PartRow, SampleRow):
        session.execute(delete(table).where(table.dataset_id == row.id))
    row.findings, row.faults, row.problem, row.inspection, row.unreadable, row.inspected = (
        None,
        None,
        None,
        "done",
        0,
        0,
    )


def _fail_if_hopeless(session: Session, row: DatasetRow, reason: str, most: int) -> None:
    if row.attempts >= most:
        detail = f"expected a worker to inspect the images, got {most} attempts that died; the last time {reason}"
        _fail(session, row, {"code": "attempts_exhausted", "detail": detail})


def _fail(session: Session, row: DatasetRow, problem: dict[str, Any]) -> None:
    row.inspection, row.problem = "failed", problem
    _end(session, row)


def _end(session: Session, row: DatasetRow) -> None:
    session.execute(delete(PartRow).where(PartRow.dataset_id == row.id))
    leases.drop(row)
