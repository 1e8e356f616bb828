"""The doorbell: tells waiting workers that there is something to do.

A row is the truth and a message only says where to look. It is sent after the commit, by whoever made the row; one
that is lost is sent again by an idle worker, and of two that are the same the second finds the row taken. Whoever is
told of one row goes on with whatever else there is (`workers.supervisor`), so no row waits behind messages. Without a
broker (the embedded service) nothing is sent: there, the worker looks by itself.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, lazyload

from app.zoo import clock
from app.zoo.tables import JobRow, StepRow

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Queue

log = logging.getLogger(__name__)
JOB_TASK, STEP_TASK = "pnc.job", "pnc.step"
_RINGS = "rings"
DEVICES, SIZES = ("any", "cpu", "cuda"), ("small", "large")
QUEUE_SECONDS = 6 * 3600
"""Far longer than any message waits: the broker must never hand one out twice by itself."""


@dataclass(frozen=True)
class Ring:
    """One message: which task, on which row, for which workers."""

    task: str
    id: str
    queue: str


class Bell(Protocol):
    """Sends messages."""

    def ring(self, rings: Iterable[Ring]) -> None:
        """Send them; trouble with the broker is logged, since a sweeper will send them again."""


class CeleryBell:
    """Sends messages to Celery workers.

    Args:
        broker_url: For instance `redis://127.0.0.1:6379/0`.
    """

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url

    def ring(self, rings: Iterable[Ring]) -> None:
        """See `Bell.ring`."""
        for ring in rings:
            try:
                celery_app(self._url).send_task(ring.task, (ring.id,), queue=ring.queue, retry=False)
            except Exception as error:
                log.warning("%s: the broker cannot be reached, workers will be told later: %s", ring.id, error)


@cache
def celery_app(broker_url: str) -> "Celery":
    """Celery, set up so that it only carries messages; jobs are kept alive by leases alone.

    Measured before: late acknowledgement runs a job again and again, a lost pool process takes it away, and results
    nobody reads fill the broker. So a message is acknowledged when it is read, and there are no results.
    """
    from celery import Celery

    app = Celery("pnc", broker=broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=3,
        broker_transport_options={
            "visibility_timeout": QUEUE_SECONDS,
            "health_check_interval": 25,
            "socket_connect_timeout": 3,
            "socket_timeout": 15,
            "socket_keepalive": True,
        },
        task_acks_late=False,
        task_default_queue="pnc",
        task_ignore_result=True,
        task_queues=queues_of(DEVICES, SIZES),
        task_reject_on_worker_lost=False,
        task_serializer="json",
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
    )
    return app


def announce_job(session: Session, job: JobRow) -> None:
    """Tell the workers of a queued job, once this transaction is committed."""
    job.announced_at = clock.now(session)
    _announce(session, Ring(JOB_TASK, job.id, job_queue(job.device, job.size)))


def announce_step(session: Session, step: StepRow, device: str) -> None:
    """Tell idle workers of a step that they may take, once this transaction is committed."""
    _announce(session, Ring(STEP_TASK, step.id, step_queue(device)))


def announce_again(
    session: Session, seconds: float, devices: Sequence[str] = DEVICES, sizes: Sequence[str] = SIZES
) -> bool:
    """Tell once more of one queued job that nobody has taken for so long; returns whether there was one.

    A worker that is told of one goes on with all the others, so an idle one that tells of one is enough: messages
    that nobody needs never pile up.

    Args:
        session: A writing session.
        seconds: How long it has waited since it was last told of.
        devices: Only jobs for these, which somebody idle could take.
        sizes: Only jobs of these.
    """
    now = clock.now(session)
    waiting = select(JobRow).where(
        JobRow.state == "queued",
        JobRow.device.in_(devices),
        JobRow.size.in_(sizes),
        or_(JobRow.announced_at.is_(None), JobRow.announced_at < now - timedelta(seconds=seconds)),
        or_(JobRow.not_before.is_(None), JobRow.not_before < now),
    )
    oldest = waiting.order_by(JobRow.id).limit(1).with_for_update(skip_locked=True, of=JobRow)
    job = session.scalars(oldest.options(lazyload("*"))).one_or_none()
    if job is None:
        return False
    announce_job(session, job)
    return True


def queues_of(devices: Iterable[str], sizes: Iterable[str]) -> "list[Queue]":
    """Every queue in which jobs for these devices and of these sizes wait, and steps of such jobs."""
    from kombu import Exchange, Queue

    names = [job_queue(device, size) for device in devices for size in sizes]
    names += [step_queue(device) for device in devices]
    return [Queue(name, Exchange(name), routing_key=name) for name in names]


def job_queue(device: str, size: str) -> str:
    """Queue of jobs."""
    return f"jobs.{device}.{size}"


def step_queue(device: str) -> str:
    """Queue of steps that are shared."""
    return f"steps.{device}"


def taken_rings(session: Session) -> list[Ring]:
    """What was announced in this session, once."""
    rings: list[Ring] = session.info.pop(_RINGS, [])
    return rings


def _announce(session: Session, ring: Ring) -> None:
    session.info.setdefault(_RINGS, []).append(ring)
