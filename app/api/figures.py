"""How busy the zoo is, counted from its rows."""

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import clock
from app.jobs.tables import AttemptRow, JobRow, TrialRow
from app.models.tables import VersionRow
from app.webhooks.tables import DeliveryRow

RECENT_SECONDS = 3600


@dataclass(frozen=True)
class Figures:
    """Counts of one moment."""

    jobs: dict[str, int] = field(default_factory=dict)
    """Jobs by state."""
    versions: dict[str, int] = field(default_factory=dict)
    """Versions by status."""
    oldest: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds that the oldest queued job has waited, by device and size."""
    ended: dict[str, int] = field(default_factory=dict)
    """Attempts that ended within the last hour, by outcome; `silent` are lost leases."""
    deliveries: dict[str, int] = field(default_factory=dict)
    """Messages to webhooks by state."""
    overdue: float = 0.0
    """Seconds that the message to a webhook that has waited longest has been due."""
    trials: int = 0
    """Trials of the last hour."""
    trial_seconds: float = 0.0
    """Their seconds together."""


def count(session: Session) -> Figures:
    """Count with a handful of queries, whatever the zoo holds."""
    now = clock.now(session)
    by_state = select(JobRow.state, func.count()).group_by(JobRow.state)
    by_status = select(VersionRow.status, func.count()).group_by(VersionRow.status)
    oldest = (
        select(JobRow.device, JobRow.size, func.min(JobRow.created_at))
        .where(JobRow.state == "queued")
        .group_by(JobRow.device, JobRow.size)
    )
    messages = select(DeliveryRow.state, func.count(), func.min(DeliveryRow.due_at)).group_by(DeliveryRow.state)
    told = {state: (number, due) for state, number, due in session.execute(messages)}
    ended, trials, seconds = recent(session, now)
    return Figures(
        jobs=dict(session.execute(by_state).all()),
        versions=dict(session.execute(by_status).all()),
        oldest={(device, size): (now - first).total_seconds() for device, size, first in session.execute(oldest)},
        ended=ended,
        deliveries={state: number for state, (number, _) in told.items()},
        overdue=max(0.0, (now - told["waiting"][1]).total_seconds()) if "waiting" in told else 0.0,
        trials=trials,
        trial_seconds=seconds,
    )


def recent(session: Session, now: datetime) -> tuple[dict[str, int], int, float]:
    """Attempts of the last hour by outcome, its trials, and their seconds together."""
    since = now - timedelta(seconds=RECENT_SECONDS)
    ended = select(AttemptRow.outcome, func.count()).where(AttemptRow.ended_at > since).group_by(AttemptRow.outcome)
    # Ids begin with the time: no index on a time of its own is needed.
    first = f"trl_{int((time.time() - RECENT_SECONDS) * 1000):012x}"
    trials, seconds = session.execute(select(func.count(), func.sum(TrialRow.seconds)).where(TrialRow.id > first)).one()
    return {outcome or "": number for outcome, number in session.execute(ended)}, trials, seconds or 0.0
