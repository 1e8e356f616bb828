"""Notices to Celery workers about waiting jobs and steps, and the names of the queues.

After the row of its notice, a worker takes other waiting rows from the database (`workers.supervisor`). So a lost
notice delays no row for long. The embedded service has no broker and sends no notices: its worker polls the database.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, lazyload

from app.db import clock
from app.db.notices import Notice, announce
from app.jobs.tables import JobRow, StepRow
from app.jobs.wakeups import WakeUps

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Queue

log = logging.getLogger(__name__)
JOB_TASK, STEP_TASK = "pnc.job", "pnc.step"
DEVICES, SIZES = ("any", "cpu", "cuda"), ("small", "large")
QUEUE_SECONDS = 6 * 3600
"""Longer than any notice waits: after this time Redis would deliver a notice to a second worker."""


class CeleryNotifier:
    """Sends notices to Celery workers.

    Args:
        broker_url: For instance `redis://127.0.0.1:6379/0`.
    """

    def __init__(self, broker_url: str) -> None:
        self._url, self.wake_ups = broker_url, WakeUps(broker_url)

    def send(self, notices: Iterable[Notice]) -> None:
        """Send notices to the broker; a notice that cannot be sent is only logged, see `announce_again`."""
        for notice in notices:
            try:
                celery_app(self._url).send_task(notice.task, (notice.id,), queue=notice.queue, retry=False)
            except Exception as error:
                log.warning("%s: the broker cannot be reached, the notice is sent again later: %s", notice.id, error)

    def wake(self, tables: Iterable[str]) -> None:
        """Wake an idle worker for each table."""
        self.wake_ups.mark(tables)


@cache
def celery_app(broker_url: str) -> "Celery":
    """Celery, configured only to deliver notices. Leases in the database decide which worker has a job.

    A notice is acknowledged when it is read, and tasks have no results. Measurements gave the reasons: with late
    acknowledgement Celery repeated jobs, a lost pool process removed jobs, and unread results filled the broker.
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
    """Send a notice about a queued job when this transaction commits."""
    job.announced_at = clock.now(session)
    announce(session, Notice(JOB_TASK, job.id, job_queue(job.device, job.size)))


def announce_step(session: Session, step: StepRow, device: str) -> None:
    """Send a notice about a shared step when this transaction commits."""
    announce(session, Notice(STEP_TASK, step.id, step_queue(device)))


def announce_again(
    session: Session, seconds: float, devices: Sequence[str] = DEVICES, sizes: Sequence[str] = SIZES
) -> bool:
    """Send another notice about one queued job whose last notice is old; returns whether there was such a job.

    One notice is enough: the worker that receives it also takes the other waiting jobs. So notices never accumulate.

    Args:
        session: A writing session.
        seconds: Age of the last notice from which another one is sent.
        devices: Only jobs for these devices, which an idle worker has.
        sizes: Only jobs of these sizes.
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
    """The queues of jobs for these devices and of these sizes, and the queues of their shared steps."""
    from kombu import Exchange, Queue

    names = [job_queue(device, size) for device in devices for size in sizes]
    names += [step_queue(device) for device in devices]
    return [Queue(name, Exchange(name), routing_key=name) for name in names]


def job_queue(device: str, size: str) -> str:
    """Name of a queue of jobs."""
    return f"jobs.{device}.{size}"


def step_queue(device: str) -> str:
    """Name of a queue of shared steps."""
    return f"steps.{device}"
