"""Steps of a job: what is worked out and kept, and what is shared among workers.

The process that runs the job writes with the job's lease. A shared step is taken like a job, with a lease of its
own, by any worker; it goes back when that lease runs out, and is gone when the job has ended.
"""

from collections.abc import Sequence

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from app.db import leases
from app.db.ids import new_id
from app.db.leases import Lease
from app.jobs import notifier
from app.jobs.notifier import DEVICES
from app.jobs.tables import JobRow, StepRow
from app.process import tracing
from app.store.objects import Stored

MAX_HELPERS_LOST = 1
"""A shared step that has cost a helper's life is left to the process that runs the job."""


def find(session: Session, job_id: str, names: Sequence[str]) -> dict[str, StepRow]:
    """Those of the steps that have a row, by name."""
    query = select(StepRow).where(StepRow.job_id == job_id, StepRow.name.in_(names))
    return {row.name: row for row in session.scalars(query)}


def keep(session: Session, lease: Lease, name: str, stored: Stored) -> None:
    """The job has come further: whatever its attempts have cost so far counts no more.

    Args:
        session: A writing session.
        lease: Of the job.
        name: The step.
        stored: Its state.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    job.fruitless = 0
    row = find(session, job.id, [name]).get(name)
    if row is None:
        row = StepRow(id=new_id("stp"), job_id=job.id, name=name)
        session.add(row)
    row.key, row.digest = stored.key, stored.digest


def share(session: Session, lease: Lease, names: Sequence[str]) -> None:
    """Let any worker take these steps; those that are known already stay as they are.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    known = find(session, job.id, names)
    shared = {"job_id": job.id, "shared": True, "traceparent": tracing.traceparent()}
    rows = [StepRow(id=new_id("stp"), name=name, **shared) for name in names if name not in known]
    session.add_all(rows)
    session.flush()
    for row in rows[1:]:  # the first is for who shares them
        notifier.announce_step(session, row, job.device)


def claim_own(session: Session, lease: Lease) -> tuple[Lease, str] | None:
    """A shared step of the job that nobody works on, and its name, for the process that runs the job.

    Raises:
        LeaseLost: another worker has the job now.
    """
    leases.held(session, JobRow, lease)
    free = StepRow.shared & StepRow.key.is_(None) & StepRow.lease_worker.is_(None) & (StepRow.job_id == lease.id)
    claimed = leases.claim(session, StepRow, free, lease.worker, lease.seconds)
    return None if claimed is None else (claimed[0], claimed[1].name)


def claim_shared(
    session: Session, worker: str, seconds: int, step_id: str | None = None, *, devices: Sequence[str] = DEVICES
) -> Lease | None:
    """Take a step of somebody else's job, if it is still to be had.

    Args:
        session: A writing session.
        worker: Name of the worker, unique among those alive.
        seconds: How long the lease lasts without a heartbeat.
        step_id: This one, not the oldest.
        devices: Only steps of jobs for these.
    """
    running = exists().where(JobRow.id == StepRow.job_id, JobRow.state == "running", JobRow.device.in_(devices))
    free = (
        StepRow.shared
        & StepRow.key.is_(None)
        & StepRow.lease_worker.is_(None)
        & (StepRow.attempts < MAX_HELPERS_LOST)
        & running
    )
    if step_id is not None:
        free &= StepRow.id == step_id
    claimed = leases.claim(session, StepRow, free, worker, seconds)
    return None if claimed is None else claimed[0]


def heartbeat(session: Session, lease: Lease) -> None:
    """Stay alive.

    Raises:
        LeaseLost: another worker has the step now, or the job has ended.
    """
    leases.renew(session, leases.held(session, StepRow, lease), lease)


def finish(session: Session, lease: Lease, stored: Stored) -> None:
    """A shared step is worked out.

    Raises:
        LeaseLost: another worker has the step now, or the job has ended.
    """
    row = leases.held(session, StepRow, lease)
    row.key, row.digest = stored.key, stored.digest
    leases.drop(row)


def release(session: Session, lease: Lease) -> None:
    """Give a shared step back untried.

    Raises:
        LeaseLost: another worker has the step now, or the job has ended.
    """
    leases.drop(leases.held(session, StepRow, lease))


def crashed(session: Session, lease: Lease) -> None:
    """The process that worked on a shared step died.

    Raises:
        LeaseLost: another worker has the step now, or the job has ended.
    """
    leases.count_attempt(leases.held(session, StepRow, lease))


def forget(session: Session, job_id: str) -> None:
    """The job has ended: its states are garbage."""
    session.execute(delete(StepRow).where(StepRow.job_id == job_id))


def sweep(session: Session) -> int:
    """Take shared steps back from workers that fell silent. Returns how many."""
    return len(leases.take_back(session, StepRow))
