"""The Celery worker: messages say which row to look at, the rows say everything else.

    celery -A workers.main worker        (or `pnc worker`)

A task only supervises a child process, so that threads are enough to run several. Versions are checked beside
the jobs, without messages. On TERM running jobs keep where they stand and are given back.
"""

import logging
import threading
from typing import Any

from celery import signals

from app.zoo import tracing
from app.zoo.bell import JOB_TASK, STEP_TASK, celery_app, queues_of
from app.zoo.errors import Misconfigured
from app.zoo.lifeline import end_with_parent
from app.zoo.logs import log_to_stderr
from app.zoo.settings import Settings
from app.zoo.zoo import open_zoo
from workers.delivering import deliver_webhooks
from workers.supervisor import JOB, STEP, Supervisor
from workers.sweeping import check_versions, sweep_now_and_then

log = logging.getLogger(__name__)
settings = Settings()
if settings.broker_url is None:
    raise SystemExit("PNC_BROKER_URL: expected the address of Redis, e.g. redis://127.0.0.1:6379/0, got none")
app = celery_app(settings.broker_url)
app.conf.update(
    task_queues=queues_of(("any",), settings.worker_sizes),  # those of its device follow once torch was asked
    worker_concurrency=settings.slots,
    worker_enable_remote_control=False,
    worker_pool="threads",
)
_stop = threading.Event()
_running: list[Supervisor] = []
_loops: list[threading.Thread] = []


def run() -> None:
    """Run the worker in this process until it is told to stop."""
    app.worker_main(["worker", "--loglevel", settings.log_level, "--without-gossip", "--without-mingle"])


def _supervisor() -> Supervisor:
    return _running[0]


@app.task(name=JOB_TASK)
def run_job(job_id: str) -> None:
    """Take this job, if it is still to be had, then what else there is."""
    _supervisor().work(JOB, job_id)


@app.task(name=STEP_TASK)
def help_out(step_id: str) -> None:
    """Take this step of somebody else's job, if it is still to be had, then what else there is."""
    _supervisor().work(STEP, step_id)


@signals.worker_init.connect
def _begin(**_: Any) -> None:
    end_with_parent()
    log_to_stderr(settings, "worker")
    tracing.begin("worker")
    try:
        _running.append(Supervisor(open_zoo(settings), _stop))
        for queue in queues_of((_supervisor().device,), settings.worker_sizes):
            app.amqp.queues.add(queue)
    except Misconfigured as error:
        # Celery swallows what a signal raises, but for this, and would go on to eat messages.
        raise SystemExit(f"error: {error}") from None
    except Exception:
        log.exception("cannot begin")
        raise SystemExit(1) from None


@signals.worker_ready.connect
def _sweep(**_: Any) -> None:
    loops = (check_versions, deliver_webhooks, sweep_now_and_then)
    _loops.extend(threading.Thread(target=loop, args=(_supervisor(),)) for loop in loops)
    for loop in _loops:
        loop.start()
    log.info("worker %s is ready: %s", _supervisor().name, ", ".join(app.amqp.queues))


@signals.worker_shutting_down.connect
def _give_back(**_: Any) -> None:
    _stop.set()


@signals.worker_shutdown.connect
def _end(**_: Any) -> None:
    _stop.set()
    for loop in _loops:
        loop.join()
    for supervisor in _running:
        supervisor.zoo.close()
    tracing.end()
