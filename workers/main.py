"""The Celery worker. A message only names a row; everything else is in the row.

    celery -A workers.main worker        (or `pnc worker`)

A task only supervises a child process, so tasks run in threads. Other threads validate versions, without messages.
On SIGTERM running jobs store their checkpoints and are released.
"""

import logging
import os
import signal
import threading
from typing import Any

from celery import bootsteps, signals

from app.access.secrets_at_rest import seal_where_ready
from app.errors import Misconfigured
from app.jobs.notifier import JOB_TASK, STEP_TASK, celery_app, queues_of
from app.process import children, tracing
from app.process import signals as leaving
from app.process.lifeline import end_with_parent
from app.process.logs import log_to_stderr
from app.process.resources import processors
from app.settings import Settings
from app.zoo import open_zoo
from workers import runner_pool
from workers.delivery import deliver_webhooks
from workers.health.server import HealthServer
from workers.supervisor import JOB, STEP, Supervisor
from workers.sweep import check_versions, fit_compositions, inspect_datasets, run_imports, sweep_regularly

log = logging.getLogger(__name__)
settings = Settings()
if "database_connections" not in settings.model_fields_set:  # of a thousand workers, each keeps one
    settings = settings.model_copy(update={"database_connections": 1})
if settings.broker_url is None:
    raise SystemExit("PNC_BROKER_URL: expected the address of Redis, e.g. redis://127.0.0.1:6379/0, got none")
_hangup = signal.getsignal(signal.SIGHUP)
"""The handler of SIGHUP at the start (ignored under nohup), because Celery replaces it."""
children.shield_children()
processors.begin(settings.slots, settings.threads)
app = celery_app(settings.broker_url)
app.conf.update(
    task_queues=queues_of(("any",), settings.worker_sizes),  # `_begin` adds the queues of the device that torch finds
    worker_concurrency=settings.slots,
    worker_enable_remote_control=False,
    worker_pool="threads",
)
_stop = threading.Event()
_running: list[Supervisor] = []
_loops: list[threading.Thread] = []
_health: list[HealthServer] = []


def run() -> None:
    """Run the worker in this process until it is told to stop."""
    app.worker_main(["worker", "--loglevel", settings.log_level, "--without-gossip", "--without-mingle"])


def _supervisor() -> Supervisor:
    return _running[0]


@app.task(name=JOB_TASK)
def run_job(job_id: str) -> None:
    """Claim and run this job if it is still available, then other waiting rows."""
    _supervisor().work(JOB, job_id)


@app.task(name=STEP_TASK)
def run_step(step_id: str) -> None:
    """Claim and run this step of another worker's job if it is still available, then other waiting rows."""
    _supervisor().work(STEP, step_id)


@signals.worker_init.connect
def _begin(**_: Any) -> None:
    end_with_parent()
    log_to_stderr(settings, "worker")
    tracing.begin("worker")
    try:
        zoo = open_zoo(settings)
        seal_where_ready(zoo)
        _running.append(Supervisor(zoo, _stop))
        for queue in queues_of((_supervisor().device,), settings.worker_sizes):
            app.amqp.queues.select_add(queue)
        if settings.health_port is not None:
            _health.append(HealthServer(settings, _supervisor().vitals))
    except Misconfigured as error:
        # Celery ignores other exceptions of a signal handler, and would continue to consume messages.
        raise SystemExit(f"error: {error}") from None
    except Exception:
        log.exception("the worker cannot start")
        raise SystemExit(1) from None


class _Signals(bootsteps.StartStopStep):
    """Replaces Celery's signal handlers: they restart on SIGHUP, and wait for running tasks on a second Ctrl-C."""

    requires = ("celery.worker.components:Pool",)  # the first component that starts after Celery has set its handlers

    def start(self, parent: Any) -> None:
        term: Any = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGHUP, _hangup)
        leaving.on_signals(lambda: term(signal.SIGTERM, None), _exit_at_once)


app.steps["worker"].add(_Signals)


def _exit_at_once() -> None:
    runner_pool.kill_all()
    os._exit(leaving.INTERRUPTED)


@signals.worker_ready.connect
def _start_loops(**_: Any) -> None:
    loops = (check_versions, run_imports, inspect_datasets, fit_compositions, deliver_webhooks, sweep_regularly)
    _loops.extend(threading.Thread(target=loop, args=(_supervisor(),), name=loop.__name__) for loop in loops)
    for loop in _loops:
        loop.start()
    log.info("worker %s is ready: %s", _supervisor().name, ", ".join(app.amqp.queues.consume_from))


@signals.worker_shutting_down.connect
def _stop_work(**_: Any) -> None:
    _stop.set()


@signals.worker_shutdown.connect
def _close(**_: Any) -> None:
    _stop.set()
    for loop in _loops:
        loop.join()
    for supervisor in _running:
        supervisor.zoo.close()
    for health in _health:
        health.close()
    tracing.end()
