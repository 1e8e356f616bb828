"""Garbage collection in a bucket removes leftovers and keeps objects that a row names."""

import os
import subprocess
import sys

import httpx

from app.lifecycle import garbage
from app.store import uploads
from app.store.s3 import S3Store
from app.zoo import Zoo
from tests.services.fixtures import Bucket
from tests.unit import seeds

ALL = {"object_seconds": -10.0, "upload_seconds": -10.0}
"""Collect without a grace period, because the age of a bucket's objects cannot be set."""


def _abandoned(zoo: Zoo) -> str:
    """An upload with one part sent."""
    with zoo.database.write() as session:
        row = uploads.declare(session, uploads.draft(bytes=4, sha256="a" * 64, limit=9))
    (part,) = zoo.inbox.parts(row) or ()
    httpx.put(part.url, content=b"abcd").raise_for_status()
    return row.id


def test_only_what_no_row_names_goes(zoo: Zoo, s3: Bucket) -> None:
    with zoo.database.write() as session:
        module = seeds.module(session, zoo)
        named = {f"zoo/{b.key}" for b in module.bundles} | {f"zoo/{module.target_version.key}"}
    before = s3.objects()
    assert named <= before
    orphan = zoo.store.put([b"orphan"]).key
    upload = _abandoned(zoo)
    s3.client.put_object(Bucket=s3.name, Key="zoo/incoming/up_dead", Body=b"x")
    s3.client.put_object(Bucket=s3.name, Key="theirs", Body=b"x")
    assert garbage.find(zoo) == garbage.Garbage((), (), (), ())  # all objects are new
    found = garbage.find(zoo, **ALL)
    assert (found.objects, found.uploads) == ((orphan,), (upload,))
    assert [name.partition("?")[0] for name in found.transfers] == ["incoming/up_dead", f"incoming/{upload}"]
    assert garbage.collect(zoo, **ALL) == 1
    assert s3.objects() == before | {"theirs"}
    assert garbage.find(zoo, **ALL) == garbage.Garbage((), (), (), ())


def test_the_command_shows_what_would_go(zoo: Zoo, s3: Bucket) -> None:
    key = zoo.store.put([b"orphan"]).key
    assert isinstance(zoo.store, S3Store)
    environment = {**os.environ, **zoo.settings.environment(), **s3.environment}
    environment["PNC_STORE_URL"] += "/zoo"
    command = [sys.executable, "-m", "app.cli", "gc", "--hours", "0"]

    def told(*options: str) -> str:
        done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"object {key} (6 bytes)\n1 objects, 0 transfers, 0 uploads, 0 files would go\n" == told("--dry-run")
    assert s3.objects() == {f"zoo/{key}"}
    assert told().endswith("1 objects, 0 transfers, 0 uploads, 0 files removed\n")
    assert s3.objects() == set()
