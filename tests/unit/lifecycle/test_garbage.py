"""Garbage: what nobody refers to goes, after its time; everything else stays."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from app.cli import app
from app.db import clock
from app.db.pages import Window
from app.errors import Conflict, DigestMismatch
from app.jobs import events, runs
from app.jobs.tables import EventRow
from app.lifecycle import garbage
from app.lifecycle.garbage import Garbage
from app.store import uploads
from app.store.directory import DirectoryStore
from app.store.objects import verified_file
from app.store.tables import UploadRow
from app.zoo import Zoo
from tests.unit import seeds


def age(zoo: Zoo, key: str, seconds: float) -> None:
    assert isinstance(zoo.store, DirectoryStore)
    when = time.time() - seconds
    os.utime(zoo.store.path(key), (when, when))


def test_objects_without_a_row_go_when_they_are_old(zoo: Zoo) -> None:
    orphan = zoo.store.put([b"orphan"])
    with zoo.database.write() as session:
        module = seeds.module(session, zoo)
        used = [b.key for b in module.bundles] + [module.target_version.key]
    for key in [orphan.key, *(k for k in used if zoo.store.size(k) is not None)]:
        age(zoo, key, 7200)
    kept = [k for k in used if zoo.store.size(k) is not None]
    assert garbage.collect(zoo) == 1
    assert zoo.store.size(orphan.key) is None
    assert kept
    assert all(zoo.store.size(k) is not None for k in kept)


def test_young_objects_stay_and_a_second_put_makes_an_object_young(zoo: Zoo) -> None:
    stored = zoo.store.put([b"just put"])
    assert garbage.collect(zoo) == 0
    age(zoo, stored.key, 7200)
    zoo.store.put([b"just put"])
    assert garbage.collect(zoo) == 0
    assert zoo.store.size(stored.key) == 8


def test_abandoned_uploads_go_with_their_bytes(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        old, new = (uploads.declare(session, uploads.draft(bytes=4, sha256=d * 64, limit=9)) for d in "ab")
        old.created_at = clock.now(session) - timedelta(days=2)
    for row in (old, new):
        (zoo.staging / row.id).write_bytes(b"12")
    (zoo.staging / "tmp").mkdir()
    for name in (old.id, "tmp"):
        os.utime(zoo.staging / name, (0, 0))
    garbage.collect(zoo)
    assert [p.name for p in zoo.staging.iterdir()] == [new.id]
    with zoo.database.read() as session:
        assert session.get(UploadRow, old.id) is None
        assert session.get(UploadRow, new.id) is not None


def test_looking_removes_nothing(zoo: Zoo) -> None:
    key = zoo.store.put([b"orphan"]).key
    age(zoo, key, 7200)
    (zoo.staging / "tmp").write_bytes(b"12")
    os.utime(zoo.staging / "tmp", (0, 0))
    with zoo.database.write() as session:
        row = uploads.declare(session, uploads.draft(bytes=4, sha256="a" * 64, limit=9))
        row.created_at = clock.now(session) - timedelta(days=2)
    for _ in range(2):
        assert garbage.find(zoo) == Garbage((key,), (), (row.id,), (zoo.staging / "tmp",))
    assert garbage.remove(zoo, garbage.find(zoo)) == Garbage((key,), (), (row.id,), (zoo.staging / "tmp",))
    assert garbage.find(zoo) == Garbage((), (), (), ())


def test_a_put_that_was_broken_off_goes_after_a_day(zoo: Zoo) -> None:
    assert isinstance(zoo.store, DirectoryStore)
    left = zoo.store.root / "incoming" / "tmp1"
    left.write_bytes(b"half")
    assert garbage.find(zoo).transfers == ()
    os.utime(left, (0, 0))
    garbage.collect(zoo)
    assert not left.exists()


def test_complete_uploads_go_when_nothing_was_made_of_them(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        version = seeds.version(session, zoo, "used")
        unused = seeds.upload(session, zoo, b"never used")
        for row in session.scalars(select(UploadRow)):
            row.completed_at = clock.now(session) - timedelta(days=8)
    for key in (version.key, unused.key):
        age(zoo, str(key), 8 * 24 * 3600)
    found = garbage.find(zoo)
    assert (found.objects, found.uploads) == ((unused.key,), (unused.id,))
    assert garbage.collect(zoo) == 1
    with zoo.database.read() as session:
        assert [row.digest for row in session.scalars(select(UploadRow))] == [version.digest]
    assert zoo.store.size(version.key) is not None


def test_what_somebody_came_to_need_stays(zoo: Zoo) -> None:
    key = zoo.store.put([seeds.tensors()]).key
    age(zoo, key, 7200)
    found = garbage.find(zoo)
    assert found.objects == (key,)
    with zoo.database.write() as session:
        seeds.version(session, zoo, "a")
    age(zoo, key, 7200)
    assert garbage.remove(zoo, found).objects == ()
    assert zoo.store.size(key) is not None


def test_completing_notices_that_the_object_went(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        row = seeds.upload(session, zoo, b"abcd")
        uploads.check_kept(session, zoo.store, row)
        zoo.store.delete(str(row.key))
        with pytest.raises(Conflict, match="send it again"):
            uploads.check_kept(session, zoo.store, row)


def test_the_command_shows_and_removes(zoo: Zoo) -> None:
    key = zoo.store.put([b"orphan"]).key
    age(zoo, key, 7200)
    told = CliRunner().invoke(app, ["gc", "--dry-run", "--data-dir", str(zoo.settings.data_dir)])
    assert told.output.splitlines() == [
        f"object {key} (6 bytes)",
        "1 objects, 0 transfers, 0 uploads, 0 files would go",
    ]
    assert zoo.store.size(key) == 6
    done = CliRunner().invoke(app, ["gc", "--data-dir", str(zoo.settings.data_dir)])
    assert done.output.splitlines()[-1] == "1 objects, 0 transfers, 0 uploads, 0 files removed"
    assert zoo.store.size(key) is None


def test_the_command_wants_a_schema(tmp_path: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNC_DATABASE_URL", empty_database_url)
    told = CliRunner().invoke(app, ["gc", "--data-dir", str(tmp_path)])
    assert told.exit_code == 1
    assert "run `pnc migrate`" in told.output


def test_a_changed_object_is_noticed(zoo: Zoo) -> None:
    assert isinstance(zoo.store, DirectoryStore)
    stored = zoo.store.put([b"as it was put"])
    with verified_file(zoo.store, stored.key, stored.digest) as path:
        assert path.read_bytes() == b"as it was put"
    path.chmod(0o644)
    path.write_bytes(b"as it was PUT")
    with pytest.raises(DigestMismatch), verified_file(zoo.store, stored.key, stored.digest):
        raise AssertionError("not reached")


def test_old_events_are_deleted_in_batches_and_jobs_and_trials_stay(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "EVENTS_AT_ONCE", 2)
    with zoo.database.write() as session:
        job = seeds.queued(session, zoo)
        lease = runs.claim(session, "worker")
        assert lease is not None
        for number in range(5):
            runs.record(session, lease, stage="s", message=str(number), progress=0.1)
        session.flush()
        rows = list(session.scalars(select(EventRow).where(EventRow.job_id == job.id).order_by(EventRow.seq)))
        for number, row in enumerate(rows[:-2]):
            row.id = f"evt_{number:032x}"
        trial = {"target_position": "a", "source_position": "b", "round": 0, "score": 0.5}
        runs.record_trial(session, lease, stage="s", progress=0.5, **trial)  # type: ignore[arg-type]
        newest = job.last_seq
    garbage.collect(zoo)
    with zoo.database.read() as session:
        assert [event.seq for event in events.events_after(session, job.id, 0)] == [newest - 2, newest - 1, newest]
        assert len(events.list_trials(session, job.id, Window()).data) == 1
