"""What every object store promises; `tests/integration/s3` holds a real bucket to it."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import DigestMismatch, NotFound
from app.store.directory import DirectoryStore
from app.store.objects import Store, key_of, read_chunks, verified_file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return DirectoryStore(tmp_path / "objects")


def _everything(store: Store) -> list[str]:
    return [*store.older_than(-10), *store.unfinished(-10)]


def test_an_object_is_named_by_its_digest_and_kept_once(store: Store) -> None:
    first, second = store.put([b"ab", b"c"]), store.put([b"abc"])
    assert first == second
    assert first.digest == hashlib.sha256(b"abc").hexdigest()
    assert _everything(store) == [first.key] == [f"{first.digest[:2]}/{first.digest[2:]}"]
    assert store.size(first.key) == 3
    with store.open(first.key) as file:
        assert file.read() == b"abc"


def test_a_file_stays_where_it_is(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"x" * 3_000_000)
    stored = store.put(source)
    assert source.exists()
    assert stored.bytes == 3_000_000
    with store.local(stored.key) as path:
        assert path.read_bytes() == source.read_bytes()
    with verified_file(store, stored.key, stored.digest) as path:
        assert path.stat().st_size == 3_000_000


def test_other_bytes_than_announced_leave_nothing(store: Store) -> None:
    with pytest.raises(DigestMismatch, match="upload it again"):
        store.put([b"abc"], expected="0" * 64)
    assert _everything(store) == []


def test_a_stream_that_breaks_leaves_nothing(store: Store) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"abc"
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        store.put(chunks())
    assert _everything(store) == []


def test_an_object_can_be_read_from_anywhere(store: Store) -> None:
    content = bytes(range(256)) * 12_000
    key = store.put([content]).key
    with store.open(key) as file:
        assert file.seek(-10, io.SEEK_END) == len(content) - 10
        assert file.read() == content[-10:]
        file.seek(1_000_001)
        assert file.read(70_000) == content[1_000_001:1_070_001]
        assert file.tell() == 1_070_001
        file.seek(5, io.SEEK_CUR)
        assert b"".join(read_chunks(file, 10)) == content[1_070_006:1_070_016]
        assert file.seek(len(content) + 5) == len(content) + 5
        assert file.read() == b""


def test_an_empty_object_is_one(store: Store) -> None:
    key = store.put([]).key
    assert store.size(key) == 0
    with store.open(key) as file:
        assert file.read() == b""


def test_deleting_twice_is_fine_and_opening_after_it_is_not(store: Store) -> None:
    key = store.put([b"abc"]).key
    store.delete(key)
    store.delete(key)
    assert store.size(key) is None
    assert store.age(key) is None
    with pytest.raises(NotFound):
        store.open(key)
    with pytest.raises(NotFound), store.local(key):
        raise AssertionError("not reached")


def test_ages_are_those_of_the_last_put(store: Store) -> None:
    key = store.put([b"abc"]).key
    age = store.age(key)
    assert age is not None
    assert -5 < age < 60
    assert list(store.older_than(3600)) == []
    assert list(store.older_than(-10)) == [key]


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "ab/../../x", "ab/" + "c" * 61, "", "AB/" + "C" * 62])
def test_only_keys_of_digests_reach_the_store(store: Store, key: str) -> None:
    for verb in (store.open, store.size, store.age, store.delete):
        with pytest.raises(ValueError, match="expected"):
            verb(key)


def test_keys_come_from_digests_only() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        key_of("../../etc/passwd")


def test_chunks_stop_at_the_size() -> None:
    assert b"".join(read_chunks(io.BytesIO(b"abcdef"), 4)) == b"abcd"
    assert b"".join(read_chunks(io.BytesIO(b"abcdef"))) == b"abcdef"
