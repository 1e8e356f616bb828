import hashlib
import io
from pathlib import Path

import pytest

from app.zoo.errors import DigestMismatch, NotFound
from app.zoo.store import DirectoryStore, key_of, local_file, read_chunks


def _files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_an_object_is_named_by_its_digest_and_kept_once(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    first, second = store.put([b"ab", b"c"]), store.put([b"abc"])
    assert first == second
    assert first.digest == hashlib.sha256(b"abc").hexdigest()
    assert _files(tmp_path) == [first.key] == [f"{first.digest[:2]}/{first.digest[2:]}"]
    assert store.size(first.key) == 3
    with store.open(first.key) as file:
        assert file.read() == b"abc"


def test_a_file_stays_where_it_is(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"x" * 3_000_000)
    store = DirectoryStore(tmp_path / "objects")
    stored = store.put(source)
    assert source.exists()
    assert stored.bytes == 3_000_000
    with local_file(store, stored.key) as path:
        assert path.read_bytes() == source.read_bytes()


def test_other_bytes_than_announced_leave_nothing(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    with pytest.raises(DigestMismatch, match="upload it again"):
        store.put([b"abc"], expected="0" * 64)
    assert _files(tmp_path) == []


def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> object:
        yield b"abc"
        raise OSError("broken")

    store = DirectoryStore(tmp_path)
    with pytest.raises(OSError, match="broken"):
        store.put(chunks())  # type: ignore[arg-type]
    assert _files(tmp_path) == []


def test_deleting_twice_is_fine_and_opening_after_it_is_not(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    key = store.put([b"abc"]).key
    store.delete(key)
    store.delete(key)
    assert store.size(key) is None
    with pytest.raises(NotFound):
        store.open(key)


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "ab/../../x", "ab/" + "c" * 61, "", "AB/" + "C" * 62])
def test_only_keys_of_digests_reach_the_disk(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        DirectoryStore(tmp_path).open(key)


def test_keys_come_from_digests_only() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        key_of("../../etc/passwd")


def test_chunks_stop_at_the_size() -> None:
    assert b"".join(read_chunks(io.BytesIO(b"abcdef"), 4)) == b"abcd"
    assert b"".join(read_chunks(io.BytesIO(b"abcdef"))) == b"abcdef"
