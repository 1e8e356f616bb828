"""`/metrics`: jobs, queues, attempts, trials and webhook deliveries in Prometheus' format.

Each request counts rows of the database, so that every replica of the API gives the same answer.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.access.auth import OPERATOR
from app.api.requests import ReadAllSession
from app.api.scopes import ScopedRoute, needs
from app.db import clock
from app.jobs.states import LIVE
from app.jobs.tables import AttemptRow, JobRow, TrialRow
from app.models.tables import VersionRow
from app.webhooks.tables import DeliveryRow

router = APIRouter(tags=["health"], route_class=ScopedRoute)

RECENT_SECONDS = 3600
UNREADY, UNDELIVERED = ("validating", "rejected"), ("waiting", "failed")
"""States of versions and of webhook deliveries that are counted."""


@dataclass(frozen=True)
class Figures:
    """Counts at one moment."""

    jobs: dict[str, int] = field(default_factory=dict)
    """Jobs that have not ended, by state."""
    versions: dict[str, int] = field(default_factory=dict)
    """Versions that are not ready, by status."""
    oldest: dict[tuple[str, str], float] = field(default_factory=dict)
    """Waiting time in seconds of the oldest queued job, by device and size."""
    ended: dict[str, int] = field(default_factory=dict)
    """Attempts that ended within the last hour, by outcome; `silent` means a lost lease."""
    deliveries: dict[str, int] = field(default_factory=dict)
    """Undelivered webhook messages by state."""
    overdue: float = 0.0
    """Delay in seconds of the longest overdue webhook delivery."""
    trials: int = 0
    """Number of trials in the last hour."""
    trial_seconds: float = 0.0
    """Total duration of these trials in seconds."""


def count(session: Session) -> Figures:
    """Count with a fixed number of queries. Rows that have ended are not counted: there may be millions of them."""
    now = clock.now(session)
    by_state = select(JobRow.state, func.count()).where(JobRow.state.in_(sorted(LIVE))).group_by(JobRow.state)
    unready = VersionRow.status.in_(UNREADY)
    by_status = select(VersionRow.status, func.count()).where(unready).group_by(VersionRow.status)
    oldest = (
        select(JobRow.device, JobRow.size, func.min(JobRow.created_at))
        .where(JobRow.state == "queued")
        .group_by(JobRow.device, JobRow.size)
    )
    delivery_query = (
        select(DeliveryRow.state, func.count(), func.min(DeliveryRow.due_at))
        .where(DeliveryRow.state.in_(UNDELIVERED))
        .group_by(DeliveryRow.state)
    )
    messages = {state: (number, due) for state, number, due in session.execute(delivery_query)}
    ended, trials, seconds = recent(session, now)
    return Figures(
        jobs=dict(session.execute(by_state).all()),
        versions=dict(session.execute(by_status).all()),
        oldest={(device, size): (now - first).total_seconds() for device, size, first in session.execute(oldest)},
        ended=ended,
        deliveries={state: number for state, (number, _) in messages.items()},
        overdue=max(0.0, (now - messages["waiting"][1]).total_seconds()) if "waiting" in messages else 0.0,
        trials=trials,
        trial_seconds=seconds,
    )


def recent(session: Session, now: datetime) -> tuple[dict[str, int], int, float]:
    """Attempts of the last hour by outcome, number of its trials, and their total seconds."""
    since = now - timedelta(seconds=RECENT_SECONDS)
    ended = select(AttemptRow.outcome, func.count()).where(AttemptRow.ended_at > since).group_by(AttemptRow.outcome)
    # An id begins with its creation time, so that the primary key's index is enough.
    first = f"trl_{int((time.time() - RECENT_SECONDS) * 1000):012x}"
    trials, seconds = session.execute(select(func.count(), func.sum(TrialRow.seconds)).where(TrialRow.id > first)).one()
    return {outcome or "": number for outcome, number in session.execute(ended)}, trials, seconds or 0.0


class _FiguresCollector(Collector):
    def __init__(self, found: Figures) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        found = self._found
        jobs = GaugeMetricFamily("pnc_jobs", "Cloning jobs that have not ended, by state.", labels=["state"])
        for state in sorted(LIVE):
            jobs.add_metric([state], found.jobs.get(state, 0))
        versions = GaugeMetricFamily("pnc_versions", "Versions that are not ready, by status.", labels=["status"])
        for status, number in found.versions.items():
            versions.add_metric([status], number)
        waiting = GaugeMetricFamily(
            "pnc_queue_age_seconds", "Waiting time of the oldest queued job.", labels=["device", "size"]
        )
        for labels, age in found.oldest.items():
            waiting.add_metric(labels, age)
        ended = GaugeMetricFamily(
            "pnc_attempts_ended_last_hour", "Attempts by outcome; `silent` means a lost lease.", labels=["outcome"]
        )
        for outcome, number in found.ended.items():
            ended.add_metric([outcome], number)
        messages = GaugeMetricFamily(
            "pnc_webhook_deliveries", "Webhook deliveries that have not arrived, by state.", labels=["state"]
        )
        for state in UNDELIVERED:
            messages.add_metric([state], found.deliveries.get(state, 0))
        overdue = GaugeMetricFamily(
            "pnc_webhook_overdue_seconds", "Delay of the longest overdue webhook delivery.", found.overdue
        )
        trials = GaugeMetricFamily("pnc_trials_last_hour", "Trials of positions.", found.trials)
        seconds = GaugeMetricFamily("pnc_trial_seconds_last_hour", "Total duration of trials.", found.trial_seconds)
        return jobs, versions, waiting, ended, messages, overdue, trials, seconds


@router.get("/metrics", include_in_schema=False)
@needs(OPERATOR)
def metrics(session: ReadAllSession) -> Response:
    """Jobs, queues, attempts and trials for Prometheus. The serving process has the metrics of predictions."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_FiguresCollector(count(session)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
