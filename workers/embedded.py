"""The worker of the embedded service: without a broker, it polls the database for jobs.

    python -m workers.embedded

It runs one job at a time, and in other threads validates versions and sends webhooks. On SIGTERM it releases its rows
at once.
"""

import logging
import os
import threading

from app.jobs import runs
from app.process import signals, tracing
from app.process.lifeline import end_with_parent
from app.process.logs import log_to_stderr
from app.settings import Settings
from app.zoo import open_zoo
from workers import runner_pool
from workers.delivery import deliver_webhooks
from workers.supervisor import JOB, Supervisor
from workers.sweep import check_versions, fit_compositions, inspect_datasets, repeat, run_imports, sweep_regularly

log = logging.getLogger(__name__)


def work(supervisor: Supervisor) -> None:
    """Work until the supervisor is stopped."""
    # No loop runs in the main thread. A signal handler there sets `stop`, and would deadlock if the main thread held
    # the lock of `stop`.
    targets = (
        check_versions,
        run_imports,
        inspect_datasets,
        fit_compositions,
        run_jobs,
        deliver_webhooks,
        sweep_regularly,
    )
    loops = [threading.Thread(target=loop, args=(supervisor,), name=loop.__name__) for loop in targets]
    for loop in loops:
        loop.start()
    log.info("worker %s is ready", supervisor.name)
    for loop in loops:
        loop.join()


def run_jobs(supervisor: Supervisor) -> None:
    """Run jobs, the oldest first, until the supervisor is stopped."""

    def take() -> bool:
        with supervisor.zoo.database.write() as session:
            seconds = supervisor.zoo.settings.lease_seconds
            lease = runs.claim(session, supervisor.name, seconds, devices=supervisor.devices)
        return lease is not None and supervisor.run_row(JOB, lease)

    repeat(take, supervisor)


def main() -> None:
    """Entry point of the worker process."""
    end_with_parent()
    settings = Settings()
    log_to_stderr(settings, "worker")
    tracing.begin("worker")
    stop = threading.Event()
    signals.on_signals(stop.set, _exit_at_once)
    zoo = open_zoo(settings)
    try:
        work(Supervisor(zoo, stop))
    finally:
        zoo.close()
        tracing.end()


def _exit_at_once() -> None:
    runner_pool.kill_all()
    os._exit(signals.INTERRUPTED)


if __name__ == "__main__":
    main()
