"""Garbage: what nobody refers to goes, after its time; everything else stays."""

import os
import time
from datetime import timedelta

import pytest

from app.zoo import clock, garbage, uploads
from app.zoo.directory import DirectoryStore
from app.zoo.errors import DigestMismatch
from app.zoo.store import verified_file
from app.zoo.tables import UploadRow
from app.zoo.zoo import Zoo
from tests.unit.zoo import seeds


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
        old, new = (uploads.declare(session, bytes=4, sha256=d * 64, limit=9) for d in "ab")
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


def test_a_changed_object_is_noticed(zoo: Zoo) -> None:
    assert isinstance(zoo.store, DirectoryStore)
    stored = zoo.store.put([b"as it was put"])
    with verified_file(zoo.store, stored.key, stored.digest) as path:
        assert path.read_bytes() == b"as it was put"
    path.chmod(0o644)
    path.write_bytes(b"as it was PUT")
    with pytest.raises(DigestMismatch), verified_file(zoo.store, stored.key, stored.digest):
        raise AssertionError("not reached")
