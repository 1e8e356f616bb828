"""Uploads: announce, send, complete."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.api.documented import documented
from app.api.requests import DoOnce, OpenZoo, Reply
from app.api.scopes import ScopedRoute, needs
from app.errors import Invalid, NotFound, StoreUnavailable
from app.lifecycle import garbage
from app.process.threads import LONG, on
from app.store import uploads
from app.store.objects import Stored
from app.store.tables import UploadRow
from app.zoo import Zoo
from pnc_client.schemas import uploads as wire

router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=ScopedRoute)
Id = Annotated[str, Path(description="Id of an upload.", examples=["up_019aa3b0c1d27f0e9d5c6b7a8f901234"])]
_BYTES = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", response_model=wire.Upload, status_code=201, responses=documented(413))
@needs("write")
def create_upload(body: wire.UploadCreate, once: DoOnce) -> Response:
    """Announce a file by size and SHA-256."""
    upload = uploads.draft(bytes=body.bytes, sha256=body.sha256, limit=once.zoo.settings.max_upload_bytes)
    parts = once.zoo.inbox.parts(upload)  # outside the transaction, which must not wait for a bucket

    def work(session: Any) -> Reply:
        row = uploads.declare(session, upload)
        return Reply(wire.Upload.of(row, 0, parts), location=f"/v1/uploads/{row.id}")

    return once(work)


@router.get("/{upload}", response_model=wire.Upload, responses=documented(404))
@needs("read")
def get_upload(upload: Id, zoo: OpenZoo) -> Any:
    """One upload. A broken transfer continues at `received`, or with the missing `parts`."""
    return _shown(zoo, _read(zoo, upload))


@router.put("/{upload}/content", status_code=204, responses=documented(404, 409, 413, 507), openapi_extra=_BYTES)
@needs("write")
async def put_content(
    upload: Id,
    request: Request,
    zoo: OpenZoo,
    offset: Annotated[int, Query(ge=0, description="Position of the body's first byte: 0, or `received`.")] = 0,
) -> None:
    """Send the bytes, all at once or from the end of a broken transfer."""
    row = await run_in_threadpool(_read, zoo, upload)
    await zoo.inbox.write(row, offset, request.stream())
    await run_in_threadpool(_check_kept, zoo, row)


@router.post("/{upload}/complete", response_model=wire.Upload, responses=documented(404, 507))
@needs("write")
@on(LONG)
def complete_upload(upload: Id, zoo: OpenZoo, once: DoOnce) -> Response:
    """Check the bytes against the announced size and digest. After that the upload can be used."""
    row = _read(zoo, upload)
    stored = _stored(zoo, row)

    def work(session: Any) -> Reply:
        complete = uploads.complete(session, upload, stored)
        uploads.check_kept(session, zoo.store, complete)
        return Reply(_shown(zoo, complete), status=200)

    response = once(work)
    zoo.inbox.discard(row)
    return response


@router.delete("/{upload}", status_code=204, responses=documented(404))
@needs("write")
def delete_upload(upload: Id, zoo: OpenZoo) -> None:
    """Delete an upload and its bytes. A version or a dataset that uses the bytes keeps them."""
    with zoo.database.write() as session:
        row = uploads.delete(session, upload)
    zoo.inbox.forget(row)
    if row.key is not None:
        garbage.remove_if_unused(zoo, row.key)


def _check_kept(zoo: Zoo, row: UploadRow) -> None:
    """Check that the upload was not deleted while its bytes arrived. If it was, remove the bytes.

    Raises:
        NotFound: the upload was deleted.
    """
    try:
        _read(zoo, row.id)
    except NotFound:
        zoo.inbox.forget(row)
        raise


def _stored(zoo: Zoo, row: UploadRow) -> Stored | None:
    """Put the upload's bytes into the store; None: another request has completed the upload."""
    try:
        return zoo.inbox.store_content(row)
    except (Invalid, StoreUnavailable):
        if _read(zoo, row.id).key is None:
            raise
        return None


def _read(zoo: Zoo, upload: str) -> UploadRow:
    with zoo.database.read() as session:
        return uploads.get(session, upload)


def _shown(zoo: Zoo, row: UploadRow) -> wire.Upload:
    parts = zoo.inbox.parts(row)
    received = zoo.inbox.received(row) if parts is None else row.bytes - sum(part.bytes for part in parts)
    return wire.Upload.of(row, received, parts)
