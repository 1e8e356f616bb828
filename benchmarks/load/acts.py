"""Periodic work of each process on the database: the service's own functions, and how often each runs.

Two ways of working are described. `wake-ups` is what the code does with Redis. `polling` is what every process did
before decision 172; its intervals are the constants of that time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.api import metrics
from app.datasets import inspections
from app.db import clock
from app.db.leases import Lease
from app.deployments import desired, replicas
from app.deployments.replicas import BEAT_SECONDS, Observation
from app.imports import runs as imports
from app.jobs import events, notifier, recovery, runs, steps
from app.jobs.streams.watching import POLL_SECONDS as WATCH_SECONDS
from app.jobs.tables import JobRow
from app.models import checks, validation
from app.serving.loader import registry
from app.settings import Settings
from app.webhooks import outbox
from app.zoo import Zoo
from benchmarks.load.rows import DEPLOYMENTS
from workers import runner, sweep

Process = Literal["cluster", "worker", "busy worker", "replica", "API"]
Way = Literal["wake-ups", "polling"]
SCRAPE_SECONDS, JOB_SECONDS, FOLLOWED = 15.0, 600.0, 100
"""Assumptions: interval of Prometheus, duration of a job, and jobs that are followed in each process of the API."""
_LOOPS = ("look for versions", "look for imports", "look for datasets", "look for messages")
_OBSERVED = {f"dep-{number}": Observation(1) for number in range(1, DEPLOYMENTS + 1)}
Work = Callable[[Session, Lease], object]


@dataclass(frozen=True)
class Act:
    """One piece of work in one transaction."""

    name: str
    work: Work
    writes: bool = True
    grows: bool = False
    """Whether its cost grows with the number of modules."""


def _versions(session: Session, _: Lease) -> None:
    if validation.claim_validation(session, "w") is None:
        checks.claim(session, "w")


def _sweep(session: Session, _: Lease) -> None:
    clock.now(session)
    validation.sweep_validations(session, 3)
    imports.sweep(session, 3)
    inspections.sweep(session, 3)
    steps.sweep(session)
    outbox.sweep(session)
    recovery.sweep(session, 3)


def _contact(session: Session, _: Lease) -> None:
    clock.now(session)
    notifier.announce_again(session, 60)


def _whole_round(session: Session, _: Lease) -> None:
    desired.deployments(session)
    for wanted in desired.deployments(session):
        desired.attachable(session, wanted, registry.READ_AHEAD)


def _count_all(session: Session, _: Lease) -> None:
    """The count of `/metrics` before decision 172."""
    session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).all()


ACTS = (
    Act("look for versions", _versions),
    Act("look for imports", lambda session, _: imports.claim(session, "w")),
    Act("look for datasets", lambda session, _: inspections.claim(session, "w")),
    Act("look for messages", lambda session, _: outbox.is_due(session), writes=False),
    Act("sweep", _sweep),
    Act("contact", _contact),
    Act("claim a job", lambda session, _: runs.claim(session, "w")),
    Act("heartbeat", runs.heartbeat),
    Act("progress", lambda session, lease: runs.record(session, lease, stage="s", message="m", progress=0.5)),
    Act("mark of deployments", lambda session, _: desired.mark(session), writes=False),
    Act("whole round of serving", _whole_round, writes=False),
    Act("report of a replica", lambda session, _: replicas.report(session, "rep_1", _OBSERVED)),
    Act("watch of 100 jobs", lambda session, _: events.heads(session, [_job(i) for i in range(FOLLOWED)]), False),
    Act("metrics", lambda session, _: metrics.count(session), writes=False),
    Act("count of all jobs", _count_all, writes=False, grows=True),
)


def _job(number: int) -> str:
    return f"job_{number + 1:032x}"


def intervals(way: Way, settings: Settings) -> dict[tuple[Process, str], float]:
    """Seconds between two runs of each act in one process of a kind; `cluster`: in the cluster as a whole."""
    both: dict[tuple[Process, str], float] = {
        ("busy worker", "claim a job"): JOB_SECONDS,
        ("busy worker", "heartbeat"): settings.heartbeat_seconds,
        ("replica", "report of a replica"): BEAT_SECONDS,
        ("API", "watch of 100 jobs"): WATCH_SECONDS,
        ("API", "metrics"): SCRAPE_SECONDS,
    }
    if way == "polling":
        return {
            **both,
            **{("worker", name): 0.3 for name in _LOOPS},
            ("worker", "sweep"): 1.0,
            ("busy worker", "progress"): 0.5,
            ("replica", "whole round of serving"): 0.5,
            ("API", "count of all jobs"): SCRAPE_SECONDS,
        }
    return {
        **both,
        **{("cluster", name): sweep.UNCHANGED_SECONDS for name in _LOOPS},
        ("cluster", "sweep"): sweep.SWEEP_SECONDS,
        ("worker", "contact"): min(sweep.CONTACT_SECONDS, settings.lease_seconds / 4),
        ("busy worker", "progress"): JOB_SECONDS / reports(JOB_SECONDS),
        ("replica", "mark of deployments"): registry.POLL_SECONDS,
        ("replica", "whole round of serving"): registry.WHOLE_SECONDS,
    }


def reports(seconds: float) -> int:
    """Written reports of progress of a job that takes so many seconds."""
    now, count = 0.0, 0
    while now < seconds:
        pause = max(runner.REPORT_SECONDS, runner.REPORT_SHARE * now)
        now, count = now + min(pause, runner.MOST_REPORT_SECONDS), count + 1
    return count


def run(act: Act, zoo: Zoo, lease: Lease) -> None:
    """Run an act in a transaction of its own."""
    with (zoo.database.write if act.writes else zoo.database.read)() as session:
        act.work(session, lease)


def prepare(zoo: Zoo) -> Lease:
    """Make one job a running one, whose lease lasts for the measurement."""
    with zoo.database.write() as session:
        job = session.get_one(JobRow, _job(0))
        job.state = "queued"
        session.flush()
        lease = runs.claim(session, "w", 24 * 3600)
    assert lease is not None
    return lease
