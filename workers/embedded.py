"""The worker of the embedded service: no broker, it looks for jobs by itself.

    python -m workers.embedded

One job at a time, and beside it one version and messages to webhooks. On TERM it gives its rows back at once.
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
from workers.sweep import check_versions, repeat, sweep_now_and_then

log = logging.getLogger(__name__)


def work(supervisor: Supervisor) -> None:
    """Work until the supervisor is stopped."""
    # None in the main thread: it handles signals, which set the event that loops wait for, whose lock they may hold.
    each = (check_versions, run_jobs, deliver_webhooks, sweep_now_and_then)
    loops = [threading.Thread(target=loop, args=(supervisor,)) for loop in each]
    for loop in loops:
        loop.start()
    log.info("worker %s is ready", supervisor.name)
    for loop in loops:
        loop.join()


def run_jobs(supervisor: Supervisor) -> None:
    """See jobs through, the oldest first, until the supervisor is stopped."""

    def take() -> bool:
        with supervisor.zoo.database.write() as session:
            seconds = supervisor.zoo.settings.lease_seconds
            lease = runs.claim(session, supervisor.name, seconds, devices=supervisor.devices)
        return lease is not None and supervisor.see_through(JOB, lease)

    repeat(take, supervisor.stop)


def main() -> None:
    """Entry of the worker process."""
    end_with_parent()
    settings = Settings()
    log_to_stderr(settings, "worker")
    tracing.begin("worker")
    stop = threading.Event()
    signals.on_signals(stop.set, _hurry)
    zoo = open_zoo(settings)
    try:
        work(Supervisor(zoo, stop))
    finally:
        zoo.close()
        tracing.end()


def _hurry() -> None:
    runner_pool.kill_all()
    os._exit(signals.INTERRUPTED)


if __name__ == "__main__":
    main()
