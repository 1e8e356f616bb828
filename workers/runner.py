"""What a child process does with one leased row: check a version, or run a cloning job.

`python -m workers.runner KIND` reads the lease as JSON from standard input. A
process of its own means that a job can always be killed, that its memory
returns, and that CUDA never meets a fork. No broker and no Celery in here.
"""

import json
import logging
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from app.zoo import jobs, runs, validation
from app.zoo.errors import Invalid, InvalidTransition, LeaseLost, NotFound, ZooError
from app.zoo.leases import Lease
from app.zoo.lifeline import end_with_parent
from app.zoo.logs import log_to_stderr
from app.zoo.settings import Settings
from app.zoo.tables import JobRow, VersionRow
from app.zoo.zoo import Zoo, open_zoo
from pnc_core.bundle import Bundle
from pnc_core.cloning import clone
from pnc_core.errors import Cancelled, PncError
from pnc_core.evaluation import multiply_accumulates
from pnc_core.identity import fingerprint
from pnc_core.job import Progress
from pnc_core.manifest import Payload
from pnc_core.positions import trace
from workers.loading import load_images, load_version

log = logging.getLogger(__name__)
REPORT_SECONDS = 0.5
"""Plain progress is written at most this often; trials always are."""
REASONS = (PncError, Invalid, NotFound)
"""Errors that another attempt would meet again: the row ends with the reason."""
PAYLOADS: tuple[Payload, ...] = ("full", "thin")


def check_version(zoo: Zoo, lease: Lease) -> None:
    """Load a version's weights, trace and run it; then accept or reject it."""
    with zoo.database.read() as session:
        version = session.get_one(VersionRow, lease.id)
    try:
        facts = _facts(zoo, version)
    except REASONS as error:
        with zoo.database.write() as session:
            validation.reject_version(session, lease, problem(error))
        return
    with zoo.database.write() as session:
        validation.accept_version(session, lease, **facts)


def _facts(zoo: Zoo, version: VersionRow) -> dict[str, Any]:
    network, spec = load_version(zoo, version)
    trace(network, spec)
    parameters = sum(p.numel() for p in network.parameters())
    macs = multiply_accumulates(network, spec)
    return {"fingerprint": fingerprint(network), "parameters": parameters, "macs": macs}


def run_job(zoo: Zoo, lease: Lease, cancelled: Callable[[], bool]) -> None:
    """Clone, publish the bundles and end the job.

    Raises:
        LeaseLost: another worker has the job now; nothing was published.
    """
    with zoo.database.read() as session:
        job = session.get_one(JobRow, lease.id)
    try:
        bundle = _clone(zoo, job, Reporter(zoo, lease), cancelled)
    except Cancelled:
        return
    except REASONS as error:
        with zoo.database.write() as session:
            runs.fail(session, lease, problem(error))
        return
    publish(zoo, lease, bundle)


def _clone(zoo: Zoo, job: JobRow, report: "Reporter", cancelled: Callable[[], bool]) -> Bundle:
    report(Progress("loading", 0.0, f"loading {job.target_version.ref}, {job.source_version.ref} and the images"))
    config = jobs.config_of(job)
    target, source = load_version(zoo, job.target_version), load_version(zoo, job.source_version)
    classes, size = (*target[1].classes, *config.classes), target[1].input_size
    images = load_images(zoo, job.dataset, classes, size, labelled=config.labels)
    return clone(target, source, images, config, report=report, cancelled=cancelled)


def publish(zoo: Zoo, lease: Lease, bundle: Bundle) -> None:
    """Store the bundles and end the job, in one fenced transaction.

    The lease is checked first, the objects are put next, and only then do the rows become
    visible: who has lost the lease puts nothing, and no row names an object that is not there.

    Raises:
        LeaseLost: another worker has the job now; nothing was published.
    """
    with tempfile.TemporaryDirectory(dir=zoo.staging) as folder:
        paths = {payload: Path(folder) / payload for payload in PAYLOADS}
        digests = {p: bundle.payload(p).write(path).removeprefix("sha256:") for p, path in paths.items()}
        files = [(p, digests[p], path.stat().st_size) for p, path in paths.items()]
        try:
            with zoo.database.write() as session:
                runs.succeed(session, lease, manifest=asdict(bundle.manifest), bundles=files)
                for payload, path in paths.items():
                    zoo.store.put(path, expected=digests[payload])
        except InvalidTransition as error:  # cancelled meanwhile
            log.info("not published: %s", error)
            with zoo.database.write() as session:
                runs.finish_cancel(session, lease)


class Reporter:
    """Turns the library's progress into rows, fenced by the lease."""

    def __init__(self, zoo: Zoo, lease: Lease) -> None:
        self._zoo, self._lease = zoo, lease
        self._last = ("", 0.0)

    def __call__(self, progress: Progress) -> None:
        """Write a trial always, plain progress when the stage is new or some time has passed."""
        trial = progress.data.get("trial")
        stage, written = self._last
        if trial is None and stage == progress.stage and time.monotonic() - written < REPORT_SECONDS:
            return
        self._last = (progress.stage, time.monotonic())
        with self._zoo.database.write() as session:
            stage, done = progress.stage, progress.done
            if isinstance(trial, dict):
                runs.record_trial(session, self._lease, stage=stage, progress=done, **trial)
            else:
                runs.record(session, self._lease, stage=stage, message=progress.message, progress=done)


def problem(error: PncError | ZooError) -> dict[str, Any]:
    """What the row keeps of an error."""
    return {"code": error.code, "detail": str(error)}


def main() -> None:
    """Entry of the child process."""
    end_with_parent()
    asked_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kind, lease = sys.argv[1], Lease(**json.load(sys.stdin))
    settings = Settings()
    log_to_stderr(settings, "runner")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    zoo = open_zoo(settings)
    try:
        if kind == "version":
            check_version(zoo, lease)
        else:
            run_job(zoo, lease, asked_to_stop.is_set)
    except LeaseLost as error:
        log.warning("%s", error)
    finally:
        zoo.close()


if __name__ == "__main__":
    main()
