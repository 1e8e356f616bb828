import hashlib
from collections.abc import AsyncIterator

import anyio
import pytest

from app.errors import Conflict, DigestMismatch, Invalid, TooLarge
from app.store import uploads
from app.store.tables import UploadRow
from app.zoo import Zoo

CONTENT = bytes(range(256)) * 40


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


def _write(zoo: Zoo, row: UploadRow, content: bytes, offset: int = 0) -> int:
    return anyio.run(zoo.inbox.write, row, offset, _chunks(content))


@pytest.fixture
def row(zoo: Zoo) -> UploadRow:
    """An announced upload of `CONTENT`."""
    with zoo.database.write() as session:
        digest = hashlib.sha256(CONTENT).hexdigest().upper()
        return uploads.declare(session, uploads.draft(bytes=len(CONTENT), sha256=digest, limit=len(CONTENT)))


def test_bytes_go_into_the_store(zoo: Zoo, row: UploadRow) -> None:
    assert _write(zoo, row, CONTENT) == len(CONTENT)
    stored = zoo.inbox.store_content(row)
    with zoo.database.write() as session:
        row = uploads.complete(session, row.id, stored)
    zoo.inbox.discard(row)
    assert list(zoo.staging.iterdir()) == []
    assert row.key is not None
    assert zoo.store.size(row.key) == len(CONTENT)
    assert zoo.inbox.store_content(row) is None
    with pytest.raises(Conflict, match="complete"):
        _write(zoo, row, CONTENT)


def test_a_broken_transfer_goes_on_where_it_ended(zoo: Zoo, row: UploadRow) -> None:
    _write(zoo, row, CONTENT[:3000])
    assert zoo.inbox.received(row) == 3000
    with pytest.raises(Conflict, match="continue at 3000"):
        _write(zoo, row, CONTENT[2000:], offset=2000)
    with pytest.raises(Invalid, match="got 3000"):
        zoo.inbox.store_content(row)
    _write(zoo, row, CONTENT[3000:], offset=3000)
    assert zoo.inbox.store_content(row) is not None


def test_beginning_anew_forgets_what_was(zoo: Zoo, row: UploadRow) -> None:
    _write(zoo, row, b"x" * 5000)
    _write(zoo, row, CONTENT)
    assert zoo.inbox.store_content(row) is not None


def test_more_than_announced_is_stopped(zoo: Zoo, row: UploadRow) -> None:
    with pytest.raises(TooLarge):
        _write(zoo, row, CONTENT + b"x" * 100_000)
    assert zoo.inbox.received(row) <= len(CONTENT)


def test_other_bytes_are_refused_and_dropped(zoo: Zoo, row: UploadRow) -> None:
    _write(zoo, row, b"x" * len(CONTENT))
    with pytest.raises(DigestMismatch):
        zoo.inbox.store_content(row)
    assert zoo.inbox.received(row) == 0


@pytest.mark.parametrize(
    ("size", "digest", "error"),
    [(11, "0" * 64, TooLarge), (0, "0" * 64, Invalid), (1, "z" * 64, Invalid), (1, "", Invalid)],
)
def test_impossible_announcements_are_refused(size: int, digest: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        uploads.draft(bytes=size, sha256=digest, limit=10)
