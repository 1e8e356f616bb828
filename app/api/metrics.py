"""`/metrics`: how busy the zoo is, in Prometheus' form, counted from rows whenever somebody asks.

Any process that sees the database could answer, so that it does not matter which replica of the API is asked.
"""

from collections.abc import Iterable

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from app.access.auth import OPERATOR
from app.api import figures
from app.api.figures import Figures
from app.api.requests import ReadAllSession
from app.api.scopes import ScopedRoute, needs
from app.jobs.states import TRANSITIONS
from app.webhooks.tables import DELIVERY_STATES

router = APIRouter(tags=["health"], route_class=ScopedRoute)


class _Counted(Collector):
    def __init__(self, found: Figures) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        found = self._found
        jobs = GaugeMetricFamily("pnc_jobs", "Cloning jobs by state.", labels=["state"])
        for state in TRANSITIONS:
            jobs.add_metric([state], found.jobs.get(state, 0))
        versions = GaugeMetricFamily("pnc_versions", "Versions of models by status.", labels=["status"])
        for status, number in found.versions.items():
            versions.add_metric([status], number)
        waiting = GaugeMetricFamily(
            "pnc_queue_age_seconds", "How long the oldest queued job has waited.", labels=["device", "size"]
        )
        for labels, age in found.oldest.items():
            waiting.add_metric(labels, age)
        ended = GaugeMetricFamily(
            "pnc_attempts_ended_last_hour", "Attempts by outcome; `silent` are lost leases.", labels=["outcome"]
        )
        for outcome, number in found.ended.items():
            ended.add_metric([outcome], number)
        messages = GaugeMetricFamily("pnc_webhook_deliveries", "Messages to webhooks by state.", labels=["state"])
        for state in DELIVERY_STATES:
            messages.add_metric([state], found.deliveries.get(state, 0))
        overdue = GaugeMetricFamily(
            "pnc_webhook_overdue_seconds", "How long the oldest message to a webhook has been due.", found.overdue
        )
        trials = GaugeMetricFamily("pnc_trials_last_hour", "Positions tried.", found.trials)
        seconds = GaugeMetricFamily("pnc_trial_seconds_last_hour", "Seconds they took together.", found.trial_seconds)
        return jobs, versions, waiting, ended, messages, overdue, trials, seconds


@router.get("/metrics", include_in_schema=False)
@needs(OPERATOR)
def metrics(session: ReadAllSession) -> Response:
    """Jobs, queues, attempts and trials for Prometheus; predictions are counted by the serving process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counted(figures.count(session)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
