"""Checks after all faults, in the database and the store."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import func, select

from app.db.leases import Lease
from app.errors import LeaseLost
from app.jobs import runs
from app.jobs.tables import AttemptRow, EventRow, JobRow, StepRow
from app.lifecycle import garbage
from app.modules.tables import BundleRow, ModuleRow
from app.tables import OWNERS
from app.zoo import Zoo


@dataclass
class Verdict:
    """Number of violations of each promise; all must be zero."""

    lost: int
    """Jobs that did not succeed."""
    doubled: int
    """Jobs with more than one module or more than one final event."""
    orphan_rows: int
    """Leftover rows of ended jobs, and bundles without an object."""
    orphan_objects: int
    """Objects that no row names, after a garbage collection without a grace period."""
    fenced_writes_accepted: int
    """Accepted writes with a lost lease."""
    digest_mismatches: int
    """Bundles that differ from those of a job without faults."""
    taken_away: int = 0
    """Deployments that disappeared without a deletion, or are not served again."""

    @property
    def clean(self) -> bool:
        """Whether all promises were kept."""
        return not any(vars(self).values())


def judge(zoo: Zoo, wanted: dict[str, set[str]], leases: Iterable[Lease]) -> Verdict:
    """Count all violations.

    Args:
        zoo: Access to the stack's rows and objects.
        wanted: Expected digests of the bundles, by the job's id.
        leases: Leases seen during the faults; all are lost by now.
    """
    with zoo.database.read() as session:
        jobs = list(session.scalars(select(JobRow).where(JobRow.id.in_(wanted))))
        modules = session.scalars(select(ModuleRow.job_id)).all()
        ends = dict(
            session.execute(
                select(EventRow.job_id, func.count())
                .where(EventRow.type == "state", EventRow.state == "succeeded")
                .group_by(EventRow.job_id)
            ).all()
        )
        steps = session.scalar(select(func.count(StepRow.id))) or 0
        running = session.scalar(select(func.count()).where(AttemptRow.ended_at.is_(None))) or 0
        bundles = session.scalars(select(BundleRow)).all()
    missing = sum(zoo.store.size(bundle.key) is None for bundle in bundles)
    digests: dict[str, set[str]] = {}
    for job in jobs:
        digests[job.id] = {bundle.digest for bundle in job.module.bundles} if job.module else set()
    ended = [job for job in jobs if job.state == "succeeded"]
    return Verdict(
        lost=len(wanted) - len(ended),
        doubled=len(modules) - len(set(modules)) + sum(count > 1 for count in ends.values()),
        orphan_rows=steps + running + missing,
        orphan_objects=len(orphans(zoo)),
        fenced_writes_accepted=sum(_goes_through(zoo, lease) for lease in leases),
        digest_mismatches=sum(digests[job.id] != wanted[job.id] for job in ended),
    )


def losses(zoo: Zoo, wanted: Iterable[str]) -> list[str]:
    """One line per job that did not succeed: its state, its problem, and the outcomes of its attempts."""
    with zoo.database.read() as session:
        lost = session.scalars(select(JobRow).where(JobRow.id.in_(wanted), JobRow.state != "succeeded")).all()
        claims = session.scalars(select(AttemptRow).where(AttemptRow.job_id.in_([job.id for job in lost]))).all()
    ends = {job.id: [f"{one.outcome} ({one.reason})" for one in claims if one.job_id == job.id] for job in lost}
    return [f"{job.id} {job.state}: {job.problem}; attempts: {', '.join(ends[job.id])}" for job in lost]


def orphans(zoo: Zoo) -> set[str]:
    """Keys of objects that no row names, after a garbage collection without a grace period."""
    garbage.collect(zoo, object_seconds=-60, upload_seconds=-60)
    with zoo.database.read() as session:
        named = {key for table in OWNERS for key in session.scalars(select(table.key))}
    return set(zoo.store.older_than(-60)) - named


def _goes_through(zoo: Zoo, lease: Lease) -> bool:
    """Whether a write with this lost lease succeeds."""
    try:
        with zoo.database.write() as session:
            runs.record(session, lease, stage="stale", message="written by a worker that lost its lease", progress=0)
    except LeaseLost:
        return False
    return True
