"""Datasets."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from app.api.requests import DoOnce, ListOf, OpenZoo, Reading, Reply
from app.api.scopes import ScopedRoute, needs
from app.api.wire import datasets as wire
from app.api.wire.problems import documented
from app.api.wire.shapes import Page
from app.zoo import apart, datasets, uploads
from app.zoo.datasets import Contents
from app.zoo.zoo import Zoo

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=ScopedRoute)
Id = Annotated[str, Path(description="Id of a dataset.", examples=["ds_019aa3b0c1d27f0e9d5c6b7a8f901234"])]


@router.post("", response_model=wire.Dataset, status_code=201)
@needs("write")
def create_dataset(body: wire.DatasetCreate, zoo: OpenZoo, once: DoOnce) -> Response:
    """Register a Parquet file of the Hugging Face image layout from a complete upload."""
    contents = _inspect(zoo, body)

    def work(session: Any) -> Reply:
        row = datasets.register(session, name=body.name, upload_id=body.upload, contents=contents)
        return Reply(wire.Dataset.model_validate(row), location=f"/v1/datasets/{row.id}")

    return once(work)


@router.get("", response_model=Page[wire.Dataset])
@needs("read")
def list_datasets(session: Reading, query: ListOf) -> Any:
    """Datasets, newest first."""
    return datasets.list_datasets(session, query.window())


@router.get("/{dataset}", response_model=wire.Dataset, responses=documented(404))
@needs("read")
def get_dataset(dataset: Id, session: Reading) -> Any:
    """One dataset."""
    return datasets.get(session, dataset)


def _inspect(zoo: Zoo, body: wire.DatasetCreate) -> Contents:
    with zoo.database.read() as session:
        _, key = uploads.completed(session, body.upload)
    with zoo.store.open(key) as file:
        return apart.inspect(file, body.classes, zoo.staging)
