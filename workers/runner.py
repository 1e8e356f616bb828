"""The work of a child process on one leased row: validate or check a version, run a cloning job or one of its steps.

This module uses neither the broker nor Celery. The fork server imports it once, before children are forked: no import
may start a thread or initialise an accelerator.
"""

import errno
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sqlalchemy.orm import Session
from torch import nn

from app.datasets.tables import DatasetRow
from app.db.leases import Lease
from app.errors import Invalid, InvalidTransition, LeaseLost, NotEnoughMemory, NotFound, ZooError
from app.jobs import runs, steps
from app.jobs import service as jobs
from app.jobs.tables import JobRow, StepRow
from app.models import checks, validation
from app.models.service import Accuracy
from app.models.tables import VersionRow
from app.process import signals, tracing, troubles
from app.process.lifeline import end_with_parent
from app.process.logs import log_to_stderr
from app.settings import Settings
from app.store import object_locks
from app.store.objects import key_of
from app.zoo import Zoo, open_zoo
from pnc_core.analysis.evaluation import multiply_accumulates
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.errors import Cancelled, PncError, is_out_of_memory
from pnc_core.graph.answers import check_answers
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.clone import clone, work_out
from pnc_core.method.job import Progress, Watch
from pnc_core.module.bundle import Bundle
from pnc_core.module.manifest import Payload
from pnc_core.vision import torchvision_models
from workers import admission, exit_codes
from workers.checkpoints import StoredCheckpoints
from workers.inspecting import run_inspection
from workers.loading import load_inputs, load_version
from workers.networks.checking import check_images, refuse_guessing
from workers.networks.composing import run_composition
from workers.networks.importing import run_import
from workers.networks.judging import evaluate_module, measure_accuracy
from workers.retry import UNREACHABLE, raise_if_store_is_down, retrying

torchvision_models()  # the slowest import of a child; done once, before the fork
tracing.load()
log = logging.getLogger(__name__)
OOM_SCORE = 500
"""Out of memory, the kernel kills the process with the highest score: the job, not its supervisor with score 0."""
REPORT_SECONDS, REPORT_SHARE, MOST_REPORT_SECONDS = 0.5, 0.02, 10.0
"""Interval of written progress: a share of the time since the start, within two limits. Trials are always written."""
_KEPT = frozenset({"trial", "left_out", "judged"})
"""Keys of progress that is written even if other progress was written just before."""
REASONS = (PncError, Invalid, NotFound)
"""Errors that another attempt would repeat; the row ends with the error as its reason."""
Network = tuple[nn.Module, NetworkSpec]
PAYLOADS: tuple[Payload, ...] = ("full", "thin")


def check_version(zoo: Zoo, lease: Lease, stopped: Callable[[], bool] = lambda: False) -> None:
    """Load a version's weights, trace and run the network; then accept or reject the version."""
    with zoo.database.read() as session:
        version = session.get_one(VersionRow, lease.id)
    try:
        facts = _facts(zoo, version)
    except REASONS as error:
        raise_if_store_is_down(zoo, error)
        with zoo.database.write() as session:
            validation.reject_version(session, lease, problem(error))
        return
    with zoo.database.write() as session:
        validation.accept_version(session, lease, **facts)


def run_check(zoo: Zoo, lease: Lease, stopped: Callable[[], bool] = lambda: False) -> None:
    """Check a version on the images of the dataset that its row names."""
    with zoo.database.read() as session:
        version = session.get_one(VersionRow, lease.id)
        dataset = session.get_one(DatasetRow, version.checking)
    try:
        result, accuracy = check_images(zoo, version, dataset)
    except REASONS as error:
        raise_if_store_is_down(zoo, error)
        result, accuracy = {"outcome": "failed", "detail": str(error)}, None
    with zoo.database.write() as session:
        checks.finish(session, lease, dataset.id, result, accuracy)


def _facts(zoo: Zoo, version: VersionRow) -> dict[str, Any]:
    network, spec = load_version(zoo, version)
    check_answers(network, trace(network, spec))
    parameters = sum(p.numel() for p in network.parameters())
    macs = multiply_accumulates(network, spec)
    return {"fingerprint": fingerprint(network), "parameters": parameters, "macs": macs}


def run_job(zoo: Zoo, lease: Lease, stopped: Callable[[], bool]) -> None:
    """Clone, publish the bundles and end the job; if stopped, store the checkpoints.

    Raises:
        LeaseLost: another worker has the job now; nothing was published.
    """
    with ExitStack() as reserved:
        _run_job(zoo, lease, stopped, reserved)


def _run_job(zoo: Zoo, lease: Lease, stopped: Callable[[], bool], reserved: ExitStack) -> None:
    with zoo.database.read() as session:
        job = session.get_one(JobRow, lease.id)
    checkpoints = StoredCheckpoints(zoo, job.id, lease, stopped)
    report, watch = Reporter(zoo, lease), _span_maker(job.id, lease)
    try:
        report(Progress("loading", 0.0, f"loading {job.target_version.ref}, {job.source_version.ref} and the images"))
        with watch("loading"):
            inputs = _inputs(zoo, job, reserved, report.left_out)
        if job.attempts == 0 and not job.anyway:
            _refuse_guessing(job, *inputs)
        bundle = clone(*inputs, report=report, cancelled=stopped, checkpoints=checkpoints, watch=watch)
    except Cancelled:
        checkpoints.flush()
        return
    except NotEnoughMemory as error:
        admission.decline(zoo, lease, error)
        return
    except REASONS as error:
        raise_if_store_is_down(zoo, error)
        with zoo.database.write() as session:
            runs.fail(session, lease, problem(error))
        return
    with watch("judging"):
        found = {
            "evidence": evaluate_module(*inputs, bundle, report.judged),
            "accuracies": _accuracies(zoo, job, *inputs[:2]),
        }
    with watch("publish"):
        publish(zoo, lease, bundle, found)


def run_step(zoo: Zoo, lease: Lease, stopped: Callable[[], bool]) -> None:
    """Run one step of a job that another process runs.

    Raises:
        LeaseLost: another worker has the step now, or the job has ended.
    """
    with ExitStack() as reserved:
        _run_step(zoo, lease, stopped, reserved)


def _run_step(zoo: Zoo, lease: Lease, stopped: Callable[[], bool], reserved: ExitStack) -> None:
    with zoo.database.read() as session:
        step = session.get_one(StepRow, lease.id)
    checkpoints, watch = StoredCheckpoints(zoo, step.job_id, None, stopped), _span_maker(step.job_id, lease)
    try:
        with watch("loading"):
            inputs = _inputs(zoo, step.job, reserved)
        state = work_out(*inputs, step.name, cancelled=stopped, checkpoints=checkpoints, watch=watch)
    except (Cancelled, NotEnoughMemory, *REASONS) as error:  # the job's own process does the step, or reports the error
        log.info("%s: not finished: %s", step.name, error)
        with zoo.database.write() as session:
            steps.crashed(session, lease)
        return
    checkpoints.finish(lease, state)


def _span_maker(job_id: str, lease: Lease) -> Watch:
    """A function that opens a span for each phase of a job or a step."""
    return partial(tracing.span, job_id=job_id, attempt=lease.token)


def _inputs(
    zoo: Zoo, job: JobRow, reserved: ExitStack, note: Callable[[str, int], object] = lambda text, count: None
) -> tuple[Network, Network, ImageSet, CloneConfig]:
    """Networks, images and parameters. The job's memory stays reserved until `reserved` is closed."""
    config = jobs.config_of(job)

    def admit(target: Network, source: Network) -> None:
        reserved.enter_context(admission.admit(zoo, target, source, job.dataset, config, anyway=job.anyway))

    return load_inputs(zoo, job.target_version, job.source_version, job.dataset, config, admit=admit, note=note)


def _refuse_guessing(job: JobRow, target: Network, source: Network, images: ImageSet, config: CloneConfig) -> None:
    """Check that neither network guesses.

    Raises:
        NearChance: one does.
    """
    for version, network in ((job.target_version, target), (job.source_version, source)) if config.labels else ():
        refuse_guessing(version, network, images, job.dataset_id)


def _accuracies(zoo: Zoo, job: JobRow, target: Network, source: Network) -> dict[str, Accuracy]:
    """Accuracy of the job's networks on its dataset, by version id; without those measured on this dataset before."""
    if not jobs.config_of(job).labels:
        return {}
    both = (job.target_version, target), (job.source_version, source)
    new = ((version, network) for version, network in both if version.accuracy_dataset != job.dataset_id)
    found = ((version.id, measure_accuracy(zoo, job.dataset, network)) for version, network in new)
    return {version_id: accuracy for version_id, accuracy in found if accuracy is not None}


def publish(zoo: Zoo, lease: Lease, bundle: Bundle, found: dict[str, Any] | None = None) -> None:
    """Store the bundles and end the job, in one transaction that the lease protects.

    The order is: check the lease, put the objects, write the rows. A process without the lease puts no object, and no
    row names a missing object. A process that is killed in between leaves objects that the next attempt uses or the
    garbage collector removes.

    Args:
        zoo: The open zoo.
        lease: The job's lease.
        bundle: The job's result.
        found: Further arguments of `app.jobs.runs.succeed`: evidence and accuracies.

    Raises:
        LeaseLost: another worker has the job now; nothing was published.
    """
    with tempfile.TemporaryDirectory(dir=zoo.staging) as folder:
        paths = {payload: Path(folder) / payload for payload in PAYLOADS}
        digests = {p: bundle.payload(p).write(path).removeprefix("sha256:") for p, path in paths.items()}
        bundles = [(p, digests[p], path.stat().st_size) for p, path in paths.items()]
        files = [(paths[p], digests[p]) for p in PAYLOADS]
        _put_all(zoo, lease, files)
        _succeed(zoo, lease, {"manifest": bundle.manifest.to_dict(), "bundles": bundles, **(found or {})}, files)


@retrying
def _put_all(zoo: Zoo, lease: Lease, files: list[tuple[Path, str]]) -> None:
    with zoo.database.write() as session:
        if runs.heartbeat(session, lease) == "cancel":
            return
    for path, digest in files:
        zoo.store.put(path, expected=digest)


@retrying
def _succeed(zoo: Zoo, lease: Lease, module: dict[str, Any], files: list[tuple[Path, str]]) -> None:
    try:
        with zoo.database.write() as session:
            runs.succeed(session, lease, **module)
            for path, digest in files:
                put = partial(zoo.store.put, path, expected=digest)
                object_locks.put_again(session, zoo.store, key_of(digest), put)
    except InvalidTransition as error:  # the job was cancelled in the meantime
        log.info("not published: %s", error)
        with zoo.database.write() as session:
            runs.finish_cancel(session, lease)


class Reporter:
    """Writes the library's progress to rows, if the lease is still held."""

    def __init__(self, zoo: Zoo, lease: Lease) -> None:
        self._zoo, self._lease = zoo, lease
        self._last, self._began = ("", 0.0), time.monotonic()
        self._waiting: list[Progress] = []
        self.judged: dict[str, Any] = {}
        """The verdict and the confusion matrices that the library has reported."""

    def __call__(self, progress: Progress) -> None:
        """Write every trial and the verdict, and other progress when the stage changes or the interval has passed.

        Reports that fail because the database is unreachable are written with the next report.

        Raises:
            LeaseLost: another worker has the job now.
        """
        judged = progress.data.get("judged")
        if isinstance(judged, dict):
            self.judged = judged
        stage, written = self._last
        is_kept = not progress.data.keys().isdisjoint(_KEPT)
        now = time.monotonic()
        pause = min(max(REPORT_SECONDS, REPORT_SHARE * (now - self._began)), MOST_REPORT_SECONDS)
        is_soon = stage == progress.stage and now - written < pause
        if is_soon and not is_kept:
            return
        self._last = (progress.stage, now)
        self._waiting = [p for p in self._waiting if not p.data.keys().isdisjoint(_KEPT)] + [progress]
        try:
            with self._zoo.database.write() as session:
                for report in self._waiting:
                    self._write(session, report)
        except UNREACHABLE as error:
            log.warning("progress is not written yet and will be retried: %s", error)
        else:
            self._waiting = []

    def left_out(self, text: str, count: int) -> None:
        """Write that images of the job cannot be decoded."""
        self(Progress("loading", 0.0, text, {"left_out": count}))

    def _write(self, session: Session, progress: Progress) -> None:
        stage, done, trial = progress.stage, progress.done, progress.data.get("trial")
        if isinstance(trial, dict):
            runs.record_trial(session, self._lease, stage=stage, progress=done, **trial)
        else:
            count = progress.data.get("left_out")
            data = {"left_out": count} if count else None
            runs.record(session, self._lease, stage=stage, message=progress.message, progress=done, data=data)


def problem(error: PncError | ZooError) -> dict[str, Any]:
    """An error as the row stores it."""
    return {"code": error.code, "detail": str(error)}


def main(kind: str, lease: Lease) -> None:
    """Entry point of the child process.

    Args:
        kind: Kind of the row, a key of `KINDS`.
        lease: The row's lease.
    """
    end_with_parent()
    asked_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.set())
    signals.leave_to_parent()
    settings = Settings()
    log_to_stderr(settings, "runner")
    tracing.begin("runner")  # after the fork: the span exporter is a thread, and threads do not survive a fork
    with suppress(OSError):  # the file exists only on Linux
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.job_memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (settings.job_memory_bytes, settings.job_memory_bytes))
    try:
        with tracing.span(
            kind, parent=os.environ.get(tracing.PARENT), **{f"{kind}_id": lease.id, "attempt": lease.token}
        ):
            _work(kind, lease, settings, asked_to_stop.is_set)
    except LeaseLost as error:
        log.warning("%s", error)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        log.warning("%s: %s", lease.id, error)
        sys.exit(code)
    finally:
        tracing.end()


def _work(kind: str, lease: Lease, settings: Settings, stopped: Callable[[], bool]) -> None:
    zoo = open_zoo(settings)
    try:
        KINDS[kind](zoo, lease, stopped)
    finally:
        zoo.close()


def _exit_code(error: Exception) -> int | None:
    """The exit code for an error; None: the error is unexpected."""
    # Check for lack of memory first: it may be an OSError, which would count as an unreachable store and be retried
    # without end.
    if is_out_of_memory(error):
        return exit_codes.OUT_OF_MEMORY
    if troubles.is_full(error) or os.strerror(errno.ENOSPC).lower() in str(error).lower():
        return exit_codes.NO_SPACE
    return exit_codes.UNREACHABLE if isinstance(error, UNREACHABLE) else None


KINDS: dict[str, Callable[[Zoo, Lease, Callable[[], bool]], None]] = {
    "version": check_version,
    "check": run_check,
    "import": run_import,
    "inspection": run_inspection,
    "composition": run_composition,
    "job": run_job,
    "step": run_step,
}
