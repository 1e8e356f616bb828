"""Files are transferred directly to and from the S3 server by presigned URLs; other requests are refused."""

import hashlib
import http.client
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from app.errors import DigestMismatch, Invalid
from app.settings import Settings
from app.store import uploads
from app.store.bucket import Bucket as ZooBucket
from app.store.s3 import S3Store
from app.store.s3_inbox import Arrived, Multipart
from app.store.tables import UploadRow
from app.zoo import Zoo
from pnc_client import Client, ServiceUnreachable
from pnc_client.schemas.uploads import Upload
from tests.integration.s3.conftest import PART
from tests.services.fixtures import Bucket
from tests.unit import seeds
from tests.unit.inprocess import FakeServing, InProcess, running_app

SMALL = b"weights" * 1000
LARGE = hashlib.shake_256(b"large").digest(2 * PART + 1000)


@pytest.fixture
def app(settings: Settings) -> Iterator[FastAPI]:
    """The application on the bucket."""
    with running_app(settings, FakeServing()) as app:
        yield app


class Line(httpx.BaseTransport):
    """The application in this process and the S3 server over the network; counts the bytes that pass the
    application."""

    def __init__(self, inner: InProcess) -> None:
        self._inner, self._network = inner, httpx.HTTPTransport()
        self.bytes = 0
        self.parts = 0
        self.breaks: list[int] = []
        """Numbers, from 1, of the network requests that are interrupted half-way."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "localhost":
            answer = self._inner.handle_request(request)
            self.bytes += len(request.content) + len(answer.content)
            return answer
        self.parts += 1
        if self.parts in self.breaks:
            assert isinstance(request.stream, httpx.SyncByteStream)
            next(iter(request.stream))
            raise httpx.WriteError("cut off", request=request)
        return self._network.handle_request(request)

    def close(self) -> None:
        self._network.close()


@pytest.fixture
def line(app: FastAPI) -> Iterator[Line]:
    with InProcess(app) as inner:
        yield Line(inner)


@pytest.fixture
def client(line: Line) -> Iterator[Client]:
    """A client that retries without pauses."""
    with Client("http://localhost:8000", transport=line, sleep=lambda _: None) as client:
        yield client


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    return path


def announce(line: Line, content: bytes) -> Upload:
    body = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with httpx.Client(base_url="http://localhost:8000", transport=line) as client:
        return Upload.model_validate(client.post("/v1/uploads", json=body).raise_for_status().json())


def url_of(upload: Upload) -> str:
    assert upload.parts
    return upload.parts[0].url


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["one part", "several parts"])
def test_bytes_never_pass_the_api(client: Client, line: Line, app: FastAPI, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    told: list[int] = []
    upload = client.uploads.push(path, lambda sent, _: told.append(sent))
    assert (upload.status, upload.received, upload.parts) == ("complete", len(content), [])
    assert upload.content_url is None
    assert line.bytes < 20_000
    assert told == sorted(told)
    assert told[-1] == len(content)
    store = app.state.zoo.store
    assert list(store.unfinished(-10)) == []
    with store.open(f"{upload.digest[:2]}/{upload.digest[2:]}") as file:
        assert file.read() == content


def test_an_interrupted_transfer_goes_on_with_what_is_missing(client: Client, line: Line, large: Path) -> None:
    line.breaks = [2]
    upload = client.uploads.push(large)
    assert upload.status == "complete"
    assert line.parts == 4  # three parts, the second one twice


def test_another_client_goes_on_where_the_first_one_died(client: Client, line: Line, large: Path) -> None:
    upload = announce(line, LARGE)
    httpx.put(url_of(upload), content=LARGE[:PART]).raise_for_status()
    told: list[int] = []
    done = client.uploads.push(large, lambda sent, _: told.append(sent), resume=upload.id)
    assert (done.id, done.status, line.parts) == (upload.id, "complete", 2)
    assert told[0] > PART
    assert client.uploads.push(large, resume=upload.id).status == "complete"
    large.write_bytes(b"another file")
    with pytest.raises(ValueError, match="omit `resume`"):
        client.uploads.push(large, resume=upload.id)


def test_a_client_gives_up_on_a_store_that_stays_away(client: Client, line: Line, large: Path) -> None:
    line.breaks = list(range(1, 50))
    with pytest.raises(ServiceUnreachable, match="expected the service's object store, got WriteError"):
        client.uploads.push(large)
    assert line.parts == 4


def test_a_longer_or_shorter_body_is_refused(line: Line) -> None:
    upload = announce(line, SMALL)
    for content in (SMALL + b"x", SMALL[:-1]):
        answer = httpx.put(url_of(upload), content=content)
        assert (answer.status_code, "SignatureDoesNotMatch" in answer.text) == (403, True)
    assert httpx.put(url_of(upload), content=iter([SMALL])).status_code in (403, 411)  # without a declared length


def test_more_bytes_than_declared_are_cut_off(line: Line, app: FastAPI) -> None:
    upload = announce(line, SMALL)
    url = urlsplit(url_of(upload))
    connection = http.client.HTTPConnection(url.netloc)
    connection.putrequest("PUT", f"{url.path}?{url.query}")
    connection.putheader("Content-Length", str(len(SMALL)))
    connection.endheaders()
    connection.send(SMALL + b"x" * 1000)
    assert connection.getresponse().status == 200
    connection.close()
    with app.state.zoo.database.read() as session:
        row = uploads.get(session, upload.id)
    stored = app.state.zoo.inbox.store_content(row)
    assert stored.bytes == len(SMALL)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("partNumber=1", "partNumber=2"),
        ("/incoming/up_", "/incoming/up_0"),
        ("/zoo/incoming/", "/zoo/ab/"),
        ("X-Amz-Expires=900", "X-Amz-Expires=90000"),
        ("X-Amz-SignedHeaders=content-length%3Bhost", "X-Amz-SignedHeaders=host"),
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
    ],
)
def test_a_tampered_url_is_refused(line: Line, old: str, new: str) -> None:
    url = url_of(announce(line, SMALL))
    assert old in url
    assert httpx.put(url.replace(old, new), content=SMALL).status_code == 403


def test_a_url_signed_with_another_secret_is_refused(
    zoo: Zoo, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = announced(zoo, SMALL)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert isinstance(zoo.store, S3Store)
    forger = ZooBucket(zoo.store.bucket.name, settings.store_endpoint)
    parts = Multipart(zoo.store, f"incoming/{row.id}", row.bytes)
    url = parts.url(forger.client, parts.find() or "", parts.spans[0], 60)
    answer = httpx.put(url, content=SMALL)
    forger.close()
    assert (answer.status_code, "SignatureDoesNotMatch" in answer.text) == (403, True)


def test_an_expired_url_is_refused_and_the_client_asks_for_another(settings: Settings, large: Path, s3: Bucket) -> None:
    short = settings.model_copy(update={"url_seconds": 4})
    with running_app(short, FakeServing()) as app, InProcess(app) as inner:
        line = Line(inner)
        url = url_of(announce(line, SMALL))
        time.sleep(5.1)
        assert httpx.put(url, content=SMALL).status_code == 403
        with Client("http://localhost:8000", transport=line, sleep=time.sleep) as client:
            slow = [5.1]  # once, in the middle of the first part, so that the URLs of the other parts expire
            upload = client.uploads.push(large, lambda *_: time.sleep(slow.pop() if slow else 0))
        assert upload.status == "complete"
        assert line.parts > 3


def test_nothing_can_be_sent_after_completion(client: Client, line: Line, app: FastAPI) -> None:
    upload = announce(line, SMALL)
    url = url_of(upload)
    assert httpx.put(url, content=SMALL).status_code == 200
    completed = client._client.post(f"/v1/uploads/{upload.id}/complete").json()
    evil = b"x" * len(SMALL)
    assert httpx.put(url, content=evil).status_code == 404
    with app.state.zoo.store.open(f"{completed['digest'][:2]}/{completed['digest'][2:]}") as file:
        assert file.read() == SMALL


def test_content_sent_to_the_api_is_told_where_to_go(client: Client, line: Line) -> None:
    upload = announce(line, SMALL)
    answer = client._client.put(f"/v1/uploads/{upload.id}/content", content=SMALL)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "URLs of its parts" in answer.json()["detail"]


def announced(zoo: Zoo, content: bytes) -> UploadRow:
    with zoo.database.write() as session:
        digest = hashlib.sha256(content).hexdigest()
        return uploads.declare(session, uploads.draft(bytes=len(content), sha256=digest, limit=10**9))


def send(zoo: Zoo, row: UploadRow, content: bytes) -> None:
    for part in zoo.inbox.parts(row) or ():
        httpx.put(part.url, content=content[part.offset :][: part.bytes]).raise_for_status()


def test_missing_parts_are_named_and_other_bytes_are_dropped(zoo: Zoo) -> None:
    row = announced(zoo, LARGE)
    with pytest.raises(Invalid, match=f"expected {len(LARGE)} bytes, got 0"):
        zoo.inbox.store_content(row)
    first, *_ = zoo.inbox.parts(row) or ()
    httpx.put(first.url, content=LARGE[:PART]).raise_for_status()
    assert [p.number for p in zoo.inbox.parts(row) or ()] == [2, 3]
    assert zoo.inbox.received(row) == PART
    send(zoo, row, LARGE[:-1] + b"?")
    with pytest.raises(DigestMismatch, match="upload it again"):
        zoo.inbox.store_content(row)
    assert zoo.inbox.received(row) == 0
    send(zoo, row, LARGE)
    stored = zoo.inbox.store_content(row)
    assert stored is not None
    assert zoo.store.size(stored.key) == len(LARGE)


def test_completing_goes_on_where_it_died(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(zoo.store, S3Store)
    row = announced(zoo, LARGE)
    send(zoo, row, LARGE)
    with monkeypatch.context() as broken:
        broken.setattr(zoo.store, "publish", _die)
        with pytest.raises(KeyboardInterrupt):
            zoo.inbox.store_content(row)
    assert zoo.inbox.parts(row) == []
    stored = zoo.inbox.store_content(row)
    assert stored is not None
    with zoo.database.write() as session:
        row = uploads.complete(session, row.id, stored)
    zoo.inbox.discard(row)
    assert zoo.inbox.store_content(row) is None
    assert list(zoo.store.unfinished(-10)) == []


@pytest.fixture
def overtaken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Simulate a concurrent action between finding an upload and listing its parts."""
    arrived = Multipart.arrived

    def overtake(work: Callable[[], object]) -> None:
        def late(parts: Multipart, upload_id: str) -> dict[int, Arrived]:
            monkeypatch.setattr(Multipart, "arrived", arrived)
            work()
            return arrived(parts, upload_id)

        monkeypatch.setattr(Multipart, "arrived", late)

    return overtake


def test_who_meets_a_completion_comes_to_the_same(zoo: Zoo, overtaken: Callable[..., None]) -> None:
    looking, completing = announced(zoo, SMALL), announced(zoo, SMALL)
    for row in (looking, completing):
        send(zoo, row, SMALL)
    overtaken(lambda: zoo.inbox.store_content(looking))
    assert zoo.inbox.parts(looking) == []
    overtaken(lambda: zoo.inbox.store_content(completing))
    stored = zoo.inbox.store_content(completing)
    assert stored is not None
    assert stored.digest == completing.digest


def test_two_completions_at_once_answer_alike(client: Client, line: Line, overtaken: Callable[..., None]) -> None:
    upload = announce(line, SMALL)
    httpx.put(url_of(upload), content=SMALL).raise_for_status()
    url, answers = f"/v1/uploads/{upload.id}/complete", []
    overtaken(lambda: answers.append(client._client.post(url)))
    answers.append(client._client.post(url))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_changes_between_hashing_and_publishing_is_not_published(
    zoo: Zoo, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(zoo.store, S3Store)
    row = announced(zoo, SMALL)
    send(zoo, row, SMALL)
    publish = zoo.store.publish

    def late(incoming: str, etag: str, stored: object) -> None:
        s3.client.put_object(Bucket=s3.name, Key=f"zoo/{incoming}", Body=b"x" * len(SMALL))
        publish(incoming, etag, stored)  # type: ignore[arg-type]

    monkeypatch.setattr(zoo.store, "publish", late)
    with pytest.raises(OSError, match=r"PreconditionFailed|Precondition Failed|412"):
        zoo.inbox.store_content(row)
    assert list(zoo.store.older_than(-10)) == []


def test_bundles_are_downloaded_from_the_store(client: Client, line: Line, app: FastAPI, tmp_path: Path) -> None:
    zoo = app.state.zoo
    with zoo.database.write() as session:
        module = seeds.module(session, zoo).id
    before = line.bytes
    path = client.modules.download(module, "full", tmp_path / "bundle")
    (wanted,) = [b for b in client.modules.get(module).bundles if b.payload == "full"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted.digest
    assert line.parts == 1
    url = f"/v1/modules/{module}/bundle"
    answer = client._client.get(url)
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (307, b"", "no-store")
    target = answer.headers["location"]
    assert "X-Amz-Expires=900" in target
    got = httpx.get(target, headers={"Range": "bytes=1-3"})
    assert (got.status_code, got.content) == (206, path.read_bytes()[1:4])
    assert got.headers["content-disposition"] == f'attachment; filename="{module}.full.safetensors"'
    assert httpx.get(target.replace(".full.", ".thin.")).status_code == 403
    assert httpx.put(target, content=b"x").status_code == 403
    assert client._client.get(url, headers={"If-None-Match": f'"{wanted.digest}"'}).status_code == 304
    assert client._client.head(url).headers["content-length"] == str(len(path.read_bytes()))
    zoo.store.delete(f"{wanted.digest[:2]}/{wanted.digest[2:]}")
    assert client._client.get(url).status_code == 404
    assert line.bytes > before


def test_a_deleted_upload_leaves_neither_parts_nor_object(
    app: FastAPI, line: Line, client: Client, large: Path
) -> None:
    zoo: Zoo = app.state.zoo
    content = large.read_bytes()
    with zoo.database.write() as session:
        digest = hashlib.sha256(content).hexdigest()
        half = uploads.declare(session, uploads.draft(bytes=len(content), sha256=digest, limit=len(content)))
    first = client.uploads.get(half.id).parts
    assert first is not None
    httpx.put(first[0].url, content=content[:PART]).raise_for_status()
    assert list(zoo.store.unfinished(-1000))
    client.uploads.delete(half.id)
    assert list(zoo.store.unfinished(-1000)) == []
    whole = client.uploads.push(large)
    assert list(zoo.store.older_than(-1000))
    client.uploads.delete(whole.id)
    assert list(zoo.store.older_than(-1000)) == list(zoo.store.unfinished(-1000)) == []
