"""The promises of every store on a real bucket, and the behaviour of buckets alone."""

import hashlib
import threading
from pathlib import Path

import pytest

from app.errors import Misconfigured, StoreUnavailable
from app.settings import Settings
from app.store.s3 import S3Store, open_s3_store
from app.store.s3_inbox import Multipart
from tests.integration.s3.conftest import PART
from tests.services.fixtures import Bucket
from tests.unit.store.test_objects import (  # noqa: F401 - the tests of every store
    test_a_file_stays_where_it_is,
    test_a_stream_that_breaks_leaves_nothing,
    test_ages_are_those_of_the_last_put,
    test_an_empty_object_is_one,
    test_an_object_can_be_read_from_anywhere,
    test_an_object_is_named_by_its_digest_and_kept_once,
    test_deleting_twice_is_fine_and_opening_after_it_is_not,
    test_only_keys_of_digests_reach_the_store,
    test_other_bytes_than_announced_leave_nothing,
)


def _large(seed: int = 0) -> bytes:
    """Bytes of two whole parts and a piece."""
    return hashlib.shake_256(bytes([seed])).digest(2 * PART + 1000)


def test_a_large_object_goes_in_parts_and_comes_back_whole(store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(_large())
    stored = store.put(tmp_path / "large")
    assert stored.digest == hashlib.sha256(_large()).hexdigest()
    head = store.bucket.head(store.name(stored.key))
    assert head is not None
    assert head["ETag"].endswith('-3"')
    with store.local(stored.key) as path:
        assert path.read_bytes() == _large()
    assert store.put([_large()]) == stored
    assert list(store.unfinished(-10)) == []


def test_a_put_that_fails_leaves_nothing_and_the_next_begins_again(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    upload_part = store.bucket.client.upload_part

    def failing(**given: object) -> object:
        number = given["PartNumber"]
        assert isinstance(number, int)
        if number == 3 and 3 not in sent:
            sent.append(3)
            raise ConnectionResetError("broken")
        sent.append(number)
        return upload_part(**given)  # type: ignore[arg-type]

    monkeypatch.setattr(store.bucket.client, "upload_part", failing)
    with pytest.raises(ConnectionResetError):
        store.put([_large()])
    assert [*store.older_than(-10), *store.unfinished(-10)] == []
    sent[:] = [3]
    stored = store.put([_large()])
    assert sorted(sent) == [1, 2, 3, 3]
    with store.open(stored.key) as file:
        assert hashlib.sha256(file.read()).hexdigest() == stored.digest


def test_parts_of_a_put_whose_process_died_do_no_harm_and_are_unfinished(store: S3Store) -> None:
    digest = hashlib.sha256(_large()).hexdigest()
    client, bucket, key = store.bucket.client, store.bucket.name, store.name(f"{digest[:2]}/{digest[2:]}")
    left = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    client.upload_part(Bucket=bucket, Key=key, UploadId=left, PartNumber=1, Body=b"?" * PART)
    with store.open(store.put([_large()]).key) as file:
        assert hashlib.sha256(file.read()).hexdigest() == digest
    (name,) = store.unfinished(-10)
    store.discard(name)
    assert list(store.unfinished(-10)) == []


def test_many_at_once_put_one_object(store: S3Store) -> None:
    results: list[str] = []

    def put(content: bytes) -> None:
        results.append(store.put([content]).key)

    for content in (b"small", _large()):
        putters = [threading.Thread(target=put, args=(content,)) for _ in range(6)]
        for putter in putters:
            putter.start()
        for putter in putters:
            putter.join()
    assert len(results) == 12
    assert sorted(store.older_than(-10)) == sorted(set(results))
    assert len(set(results)) == 2
    with store.open(results[-1]) as file:
        assert file.read() == _large()


def test_what_else_lies_in_the_bucket_is_nobodys_business(store: S3Store, s3: Bucket) -> None:
    for key in ("readme", "zoo/readme", "zoo/ab/cd", f"ab/{'c' * 62}"):
        s3.client.put_object(Bucket=s3.name, Key=key, Body=b"theirs")
    assert list(store.older_than(-10)) == []
    assert list(store.unfinished(-10)) == []


def test_discarding_twice_is_fine(store: S3Store) -> None:
    parts = Multipart(store, "incoming/up_1", 10)
    parts.begin()
    (name,) = store.unfinished(-10)
    for _ in range(2):
        store.discard(name)
        store.discard("incoming/none")
    assert list(store.unfinished(-10)) == []


def test_reading_goes_on_where_the_server_died(store: S3Store, s3: Bucket) -> None:
    key = store.put([_large()]).key
    with store.open(key) as file:
        first = file.read(100_000)
        s3.service.kill()
        reviver = threading.Timer(0.5, s3.service.restart)
        reviver.start()
        rest = file.read()
        reviver.join()
    assert first + rest == _large()


def test_a_server_that_dies_is_said_to_be_away(store: S3Store, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    s3.service.kill()
    try:
        for verb in (
            lambda: store.put([b"abc"]),
            lambda: store.size("ab/" + "c" * 62),
            lambda: list(store.older_than(0)),
        ):
            with pytest.raises(StoreUnavailable, match="expected the object store at http://"):
                verb()
    finally:
        s3.service.restart()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"store_url": "s3://no-such-bucket"},
            "PNC_STORE_URL: expected the bucket no-such-bucket, got none at http://",
        ),
        ({"store_url": "s3://"}, "PNC_STORE_URL: expected a directory, s3://bucket or s3://bucket/prefix, got 's3://'"),
        (
            {"store_endpoint": "http://127.0.0.1:1"},
            "PNC_STORE_ENDPOINT: expected an S3 server at http://127.0.0.1:1, got",
        ),
        ({"store_endpoint": "nonsense"}, "PNC_STORE_ENDPOINT: expected an address such as http://host:7480, got"),
    ],
)
def test_a_store_that_cannot_be_used_is_said_in_one_line(settings: Settings, change: dict[str, str], said: str) -> None:
    with pytest.raises(Misconfigured, match=said) as caught:
        open_s3_store(settings.model_copy(update=change), settings.data_dir)
    assert "\n" not in str(caught.value)


def test_wrong_and_missing_keys_are_said_in_one_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(Misconfigured, match=r"PNC_STORE_URL: .* got a refusal of these keys; set AWS_ACCESS_KEY_ID"):
        open_s3_store(settings, settings.data_dir)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Misconfigured, match="PNC_STORE_URL: expected keys for the bucket"):
        open_s3_store(settings, settings.data_dir)
