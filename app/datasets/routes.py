"""Datasets."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from app.api.documented import documented
from app.api.requests import ArchivesOf, DoOnce, ListOf, OpenZoo, ReadSession, Reply
from app.api.scopes import ScopedRoute, needs, note
from app.datasets import inspections, sandbox
from app.datasets import service as datasets
from app.datasets.service import Contents
from app.process.threads import LONG, on
from app.store import downloads, uploads
from app.store.objects import Stored
from app.zoo import Zoo
from pnc_client.schemas import datasets as wire
from pnc_client.schemas.shapes import Archiving, Page

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=ScopedRoute)
Id = Annotated[str, Path(description="Id of a dataset.", examples=["ds_019aa3b0c1d27f0e9d5c6b7a8f901234"])]


@router.post("", response_model=wire.Dataset, status_code=201)
@needs("write")
@on(LONG)
def create_dataset(body: wire.DatasetCreate, zoo: OpenZoo, once: DoOnce) -> Response:
    """Register a Parquet file of the Hugging Face image layout from a complete upload."""
    contents = _inspect(zoo, body)

    def work(session: Any) -> Reply:
        row = datasets.register(session, name=body.name, upload_id=body.upload, contents=contents)
        return Reply(wire.Dataset.model_validate(row), location=f"/v1/datasets/{row.id}")

    return once(work)


@router.get("", response_model=Page[wire.Dataset])
@needs("read")
def list_datasets(session: ReadSession, query: ArchivesOf) -> Any:
    """Datasets, newest first."""
    return datasets.list_datasets(session, query.window(), archived=query.archived)


@router.get("/{dataset}", response_model=wire.Dataset, responses=documented(404))
@needs("read")
def get_dataset(dataset: Id, session: ReadSession) -> Any:
    """One dataset."""
    return datasets.get(session, dataset)


@router.get("/{dataset}/content", response_class=Response, responses={**downloads.DOCUMENTED, **documented(404, 416)})
@needs("read")
def download_dataset(dataset: Id, request: Request, zoo: OpenZoo) -> Response:
    """Download a dataset's Parquet file, as it was uploaded. The audit log records each download."""
    with zoo.database.read() as session:
        row = datasets.get(session, dataset)
        stored, filename = Stored(row.key, row.digest, row.bytes), f"{row.name}.parquet"
    response = downloads.send(request, zoo.store, stored, filename)
    if request.method == "GET":
        note(request.app.state.zoo, request, "download_dataset", str(response.status_code))
    return response


@router.get("/{dataset}/unreadable", response_model=Page[wire.Unreadable], responses=documented(404))
@needs("read")
def list_unreadable(dataset: Id, session: ReadSession, query: ListOf) -> Any:
    """Images of a dataset that cannot be decoded, in the order of the rows."""
    return inspections.unreadable(datasets.get(session, dataset), query.window())


@router.patch("/{dataset}", response_model=wire.Dataset, responses=documented(404))
@needs("write")
def change_dataset(dataset: Id, body: Archiving, zoo: OpenZoo) -> Any:
    """Archive or restore a dataset."""
    with zoo.database.write() as session:
        return wire.Dataset.model_validate(datasets.set_archived(session, dataset, body.archived))


@router.delete("/{dataset}", status_code=204, responses=documented(404))
@needs("write")
def archive_dataset(dataset: Id, zoo: OpenZoo) -> None:
    """Archive a dataset: it leaves the lists and takes no more jobs; those that have begun go on."""
    with zoo.database.write() as session:
        datasets.set_archived(session, dataset, archived=True)


def _inspect(zoo: Zoo, body: wire.DatasetCreate) -> Contents:
    with zoo.database.read() as session:
        _, key = uploads.completed(session, body.upload)
    with zoo.store.open(key) as file:
        return sandbox.inspect(file, body.classes, zoo.staging, zoo.settings.max_dataset_bytes)
