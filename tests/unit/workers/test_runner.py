"""Publishing: all or nothing, and only by whoever holds the lease."""

import sqlite3
from itertools import pairwise
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import stop_after_attempt

from app.db import leases
from app.db.leases import Lease
from app.db.pages import Window
from app.errors import LeaseLost, Misconfigured, NoSpace, StoreUnavailable
from app.jobs import events, recovery, runs
from app.jobs import service as jobs
from app.jobs.tables import EventRow, JobRow
from app.models import service as models
from app.models import validation
from app.models.service import Accuracy
from app.models.tables import VersionRow
from app.modules import service as modules
from app.store.directory import DirectoryStore
from app.zoo import Zoo
from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.graph.architectures import build_network
from pnc_core.method.job import Progress
from pnc_core.module.bundle import Bundle
from pnc_core.module.manifest import FORMAT, HeadSpec, Manifest, Sizes
from tests.unit import seeds
from tests.unit.workers.robbing import rob
from workers import exit_codes, runner
from workers.runner import Reporter, _exit_code, _put_all, check_version, publish, run_job

SPEC = NetworkSpec(architecture="cnn", classes=("a", "b"), input_size=(1, 8, 8), mean=(0.0,), std=(1.0,))
BUNDLE = Bundle(
    Manifest(
        format=FORMAT, payload="full", classes=("7", "8"), target=SPEC, target_fingerprint="t", source=SPEC,
        source_fingerprint="s", position=Position(target="input", source="input"), adapter_relu=False,
        kept_fraction=0.5, head=HeadSpec(kind="affine", grid=1, target_taps=(), module_taps=()),
        sizes=Sizes(source=1, module=1, adapter=1, head=1), validation={}, config=CloneConfig(classes=("7", "8")),
        created_by="test",
    ),
    {"adapter.weight": torch.ones(2, 2), "module.fc.weight": torch.ones(3)},
)  # fmt: skip


@pytest.fixture
def lease(zoo: Zoo) -> Lease:
    with zoo.database.write() as session:
        seeds.queued(session, zoo)
    return claim(zoo)


def claim(zoo: Zoo) -> Lease:
    with zoo.database.write() as session:
        lease = runs.claim(session, "worker")
    assert lease is not None
    return lease


def state(zoo: Zoo, lease: Lease) -> str:
    with zoo.database.read() as session:
        return jobs.get(session, lease.id).state


def bundles(zoo: Zoo) -> dict[str, str]:
    with zoo.database.read() as session:
        rows = modules.list_modules(session, Window(10, None)).data
        return {b.payload: b.key for row in rows for b in row.bundles}


def objects(zoo: Zoo) -> set[str]:
    return set(zoo.store.older_than(-10))


def test_what_the_owner_forbids_while_a_job_waits_is_not_cloned(zoo: Zoo, lease: Lease) -> None:
    with zoo.database.write() as session:
        models.change(session, "high", clonable=["7"])
    run_job(zoo, lease, lambda: False)
    with zoo.database.read() as session:
        job = jobs.get(session, lease.id)
    assert job.problem is not None
    assert (job.state, "ask the owner" in job.problem["detail"]) == ("failed", True)


def test_both_payloads_are_stored_and_the_job_succeeds(zoo: Zoo, lease: Lease) -> None:
    before = objects(zoo)
    publish(zoo, lease, BUNDLE)
    assert state(zoo, lease) == "succeeded"
    assert set(bundles(zoo)) == {"full", "thin"}
    assert objects(zoo) - before == set(bundles(zoo).values())
    with zoo.store.open(bundles(zoo)["thin"]) as file:
        assert file.read() == BUNDLE.thin().to_bytes()
    assert list(zoo.staging.iterdir()) == []


def test_what_was_measured_is_kept_with_the_versions(zoo: Zoo, lease: Lease) -> None:
    with zoo.database.read() as session:
        job = jobs.get(session, lease.id)
        found = {job.source_version_id: Accuracy(0.75, 100, job.dataset_id)}
    publish(zoo, lease, BUNDLE, {"accuracies": found})
    with zoo.database.read() as session:
        job = jobs.get(session, lease.id)
        assert (job.target_version.accuracy, job.source_version.accuracy) == (None, 0.75)


def test_no_version_is_measured_on_a_dataset_twice(zoo: Zoo, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    network = (torch.nn.Identity(), SPEC)
    monkeypatch.setattr(runner, "measure_accuracy", lambda zoo, dataset, network: Accuracy(0.5, 99, dataset.id))
    with zoo.database.write() as session:
        job = jobs.get(session, lease.id)
        assert set(runner._accuracies(zoo, job, network, network)) == {job.target_version_id, job.source_version_id}
        models.note_accuracy(session, job.target_version_id, Accuracy(0.5, 99, job.dataset_id))
        session.refresh(job.target_version)
        assert set(runner._accuracies(zoo, job, network, network)) == {job.source_version_id}


def test_who_has_lost_the_lease_publishes_nothing(zoo: Zoo, lease: Lease) -> None:
    with zoo.database.write() as session:
        seeds.expire(session, session.get_one(JobRow, lease.id))
        recovery.sweep(session)
    before, second = objects(zoo), claim(zoo)
    with pytest.raises(LeaseLost):
        publish(zoo, lease, BUNDLE)
    assert objects(zoo) == before
    publish(zoo, second, BUNDLE)
    assert all(zoo.store.size(key) for key in bundles(zoo).values())


def test_a_late_loser_does_not_take_the_winner_s_objects(zoo: Zoo, lease: Lease) -> None:
    with zoo.database.write() as session:
        seeds.expire(session, session.get_one(JobRow, lease.id))
        recovery.sweep(session)
    publish(zoo, claim(zoo), BUNDLE)
    with pytest.raises(LeaseLost):
        publish(zoo, lease, BUNDLE)
    assert all(zoo.store.size(key) for key in bundles(zoo).values())


def test_a_job_cancelled_at_the_last_moment_publishes_nothing(zoo: Zoo, lease: Lease) -> None:
    before = objects(zoo)
    with zoo.database.write() as session:
        jobs.cancel(session, lease.id)
    publish(zoo, lease, BUNDLE)
    assert state(zoo, lease) == "cancelled"
    assert objects(zoo) == before
    assert bundles(zoo) == {}


def test_a_store_that_fails_leaves_the_job_running(zoo: Zoo, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zoo.store, "put", full)
    monkeypatch.setattr(_put_all.retry, "stop", stop_after_attempt(2))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="No space"):
        publish(zoo, lease, BUNDLE)
    assert state(zoo, lease) == "running"
    assert bundles(zoo) == {}


def test_bundles_that_garbage_took_before_their_rows_are_put_again(
    zoo: Zoo, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    rob(zoo, monkeypatch)
    publish(zoo, lease, BUNDLE)
    assert set(bundles(zoo)) == {"full", "thin"}
    assert all(zoo.store.size(key) for key in bundles(zoo).values())


def test_plain_progress_is_written_now_and_then_and_trials_always(zoo: Zoo, lease: Lease) -> None:
    report = Reporter(zoo, lease)
    trial = {"target_position": "a", "source_position": "b", "round": 0, "score": 0.5}
    for i in range(50):
        report(Progress("inserting", i / 100, "step"))
    for i in range(3):
        report(Progress("inserting", 0.6 + i / 100, "tried", {"trial": trial}))
    with zoo.database.read() as session:
        kinds = [e.type for e in events.events_after(session, lease.id, 0)]
        assert kinds.count("trial") == 3
        assert kinds.count("progress") <= 5
    with zoo.database.write() as session:
        leases.held(session, JobRow, lease)


def test_images_that_are_left_out_are_an_event_with_their_number(zoo: Zoo, lease: Lease) -> None:
    report = Reporter(zoo, lease)
    report(Progress("loading", 0.0, "loading the images"))
    report.left_out("3 of 9 images cannot be decoded and are left out; row 2: expected an image", 3)
    with zoo.database.read() as session:
        *_, last = events.list_events(session, lease.id, Window(10, None)).data
    assert (last.type, last.data) == ("progress", {"left_out": 3})
    assert last.message.startswith("3 of 9 images cannot be decoded")


def test_the_verdict_is_kept_and_its_report_always_written(zoo: Zoo, lease: Lease) -> None:
    report, judged = Reporter(zoo, lease), {"verdict": {"outcome": "equal"}}
    report(Progress("calibrating", 0.9, "step"))
    report(Progress("calibrating", 1.0, "not distinguishable", {"judged": judged}))
    assert report.judged == judged
    with zoo.database.read() as session:
        assert events.events_after(session, lease.id, 0)[-1].message == "not distinguishable"


def spoil(zoo: Zoo, key: str, content: bytes | None) -> None:
    assert isinstance(zoo.store, DirectoryStore)
    path = zoo.store.path(key)
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize(("content", "code"), [(None, "not_found"), (b"other bytes", "digest_mismatch")])
def test_a_lost_or_changed_object_ends_the_job_with_the_reason(
    zoo: Zoo, lease: Lease, content: bytes | None, code: str
) -> None:
    with zoo.database.read() as session:
        key = jobs.get(session, lease.id).target_version.key
    spoil(zoo, key, content)
    run_job(zoo, lease, lambda: False)
    with zoo.database.read() as session:
        job = jobs.get(session, lease.id)
        assert (job.state, job.attempts) == ("failed", 0)
        assert job.problem is not None
        assert job.problem["code"] == code


def test_a_changed_object_rejects_the_version_with_the_reason(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        version = seeds.version(session, zoo, "low", status="validating")
    spoil(zoo, version.key, b"other bytes")
    with zoo.database.write() as session:
        lease = validation.claim_validation(session, "worker")
    assert lease is not None
    check_version(zoo, lease)
    with zoo.database.read() as session:
        row = session.get_one(VersionRow, version.id)
        assert row.status == "rejected"
        assert row.problem is not None
        assert row.problem["code"] == "digest_mismatch"


def test_a_network_whose_logits_are_no_numbers_is_rejected_with_the_reason(zoo: Zoo) -> None:
    state = build_network(SPEC).state_dict()
    state["fc.weight"] = torch.full_like(state["fc.weight"], 3e38)
    with zoo.database.write() as session:
        models.create(session, name="overflowing")
        upload = seeds.upload(session, zoo, safetensors.torch.save(state))
        version = models.add_version(session, "overflowing", upload_id=upload.id, spec=SPEC)
        lease = validation.claim_validation(session, "worker")
    assert lease is not None
    check_version(zoo, lease)
    with zoo.database.read() as session:
        row = session.get_one(VersionRow, version.id)
        assert row.status == "rejected"
        assert row.problem is not None
        assert row.problem["code"] == "invalid_network"
        assert "expected finite logits for random images, got NaN or infinity" in row.problem["detail"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), exit_codes.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), exit_codes.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), exit_codes.OUT_OF_MEMORY),
        (OSError(12, "Cannot allocate memory"), exit_codes.OUT_OF_MEMORY),
        (PoolTimeout("QueuePool limit reached"), exit_codes.UNREACHABLE),
        (OSError(28, "No space left on device"), exit_codes.NO_SPACE),
        (OSError(122, "Disk quota exceeded"), exit_codes.NO_SPACE),
        (NoSpace("PNC_STORE_URL: expected room"), exit_codes.NO_SPACE),
        (OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")), exit_codes.NO_SPACE),
        (RuntimeError("I/O error: No space left on device (os error 28)"), exit_codes.NO_SPACE),
        (OSError(30, "Read-only file system"), exit_codes.UNREACHABLE),
        (Misconfigured("PNC_DATABASE_URL: expected a database that answers"), exit_codes.UNREACHABLE),
        (ValueError("a defect of ours"), None),
    ],
)
def test_the_supervisor_is_told_why_a_process_ends(error: Exception, code: int | None) -> None:
    assert _exit_code(error) == code


def test_a_store_that_is_gone_as_a_whole_ends_nothing(zoo: Zoo, lease: Lease) -> None:
    """A disk that is not mounted looks like an empty directory; one object that is lost is another matter."""
    with zoo.database.write() as session:
        seeds.version(session, zoo, "unchecked", status="validating", value=9)
        unchecked = validation.claim_validation(session, "worker")
    assert unchecked is not None
    root = zoo.settings.data_dir / "objects"
    away = root.rename(root.with_name("elsewhere"))
    root.mkdir()
    for work in (lambda: run_job(zoo, lease, lambda: False), lambda: check_version(zoo, unchecked)):
        with pytest.raises(StoreUnavailable, match=r"got none there|empty one") as failed:
            work()
        assert _exit_code(failed.value) == exit_codes.UNREACHABLE
    assert state(zoo, lease) == "running"
    root.rmdir()
    away.rename(root)


def test_a_long_job_reports_more_seldom(zoo: Zoo, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [1000.0]
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: moment[0]))
    report, written = Reporter(zoo, lease), []
    for second in range(3600):
        moment[0] = 1000.0 + second
        report(Progress("inserting", second / 3600, str(second)))
    with zoo.database.read() as session:
        rows = session.scalars(select(EventRow).where(EventRow.job_id == lease.id, EventRow.message != "")).all()
        written = [int(row.message) for row in rows if row.message.isdigit()]
    assert written[:5] == [0, 1, 2, 3, 4]
    assert max(later - sooner for sooner, later in pairwise(written)) <= runner.MOST_REPORT_SECONDS + 1
    assert len(written) < 550
