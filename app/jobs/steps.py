"""Steps of a job: checkpoints of finished steps, and steps that several workers share.

The process that runs the job writes its steps with the job's lease. Any worker can claim a shared step with a lease of
its own; the step can be claimed again when that lease expires. All steps are deleted when the job ends.
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
"""After this number of workers died on a shared step, only the process that runs the job may claim it."""


def find(session: Session, job_id: str, names: Sequence[str]) -> dict[str, StepRow]:
    """The rows of a job's steps, by name; steps without a row are left out."""
    query = select(StepRow).where(StepRow.job_id == job_id, StepRow.name.in_(names))
    return {row.name: row for row in session.scalars(query)}


def keep(session: Session, lease: Lease, name: str, stored: Stored) -> None:
    """Record the checkpoint of a step, and reset the count of attempts without a new checkpoint.

    Args:
        session: A writing session.
        lease: Lease of the job.
        name: Name of the step.
        stored: The step's state in the store.

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
    """Share steps, so that any worker can claim them; steps that have a row already do not change.

    Raises:
        LeaseLost: another worker has the job now.
    """
    job = leases.held(session, JobRow, lease)
    known = find(session, job.id, names)
    shared = {"job_id": job.id, "shared": True, "traceparent": tracing.traceparent()}
    rows = [StepRow(id=new_id("stp"), name=name, **shared) for name in names if name not in known]
    session.add_all(rows)
    session.flush()
    for row in rows[1:]:  # the process that shares the steps claims the first one itself
        notifier.announce_step(session, row, job.device)


def claim_own(session: Session, lease: Lease) -> tuple[Lease, str] | None:
    """Claim a free shared step of the job for the process that runs the job; returns the lease and the step's name.

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
    """Claim a free shared step of a running job, if there is one.

    Args:
        session: A writing session.
        worker: Name of the worker, unique among running workers.
        seconds: Duration of the lease without a heartbeat.
        step_id: Claim only this step; None: the oldest one.
        devices: Claim only steps of jobs for these devices.
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
    """Renew the lease of a shared step.

    Raises:
        LeaseLost: another worker has the step now, or the job has ended.
    """
    leases.renew(session, StepRow, lease)


def finish(session: Session, lease: Lease, stored: Stored) -> None:
    """Record the result of a shared step, and end its lease.

    Raises:
        LeaseLost: another worker has the step now, or the job has ended.
    """
    row = leases.held(session, StepRow, lease)
    row.key, row.digest = stored.key, stored.digest
    leases.drop(row)


def release(session: Session, lease: Lease) -> None:
    """Give up the lease of a shared step without a result, so that it can be claimed again.

    Raises:
        LeaseLost: another worker has the step now, or the job has ended.
    """
    leases.drop(leases.held(session, StepRow, lease))


def crashed(session: Session, lease: Lease) -> None:
    """Record that the process that worked on a shared step died.

    Raises:
        LeaseLost: another worker has the step now, or the job has ended.
    """
    leases.count_attempt(leases.held(session, StepRow, lease))


def forget(session: Session, job_id: str) -> None:
    """Delete the steps of a job that has ended; garbage collection removes their states from the store."""
    session.execute(delete(StepRow).where(StepRow.job_id == job_id))


def sweep(session: Session) -> int:
    """Take shared steps back from workers whose leases have expired, and return their number."""
    return len(leases.take_back(session, StepRow))
