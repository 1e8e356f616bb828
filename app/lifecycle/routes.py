"""HTTP API of purges: GET shows the plan and its blockers, POST purges.

A purge cannot be undone, so it needs the scope `admin`. A repeated purge has the same answer, so it needs no
Idempotency-Key.
"""

from typing import Any

from fastapi import APIRouter

from app.api.documented import documented
from app.api.requests import OpenZoo
from app.api.scopes import ScopedRoute, needs
from app.datasets import routes as datasets_api
from app.datasets import service as datasets
from app.lifecycle import purges
from app.lifecycle.purges import Find
from app.models import service as models
from app.models.routes import Name, Number
from app.modules import routes as modules_api
from app.modules import service as modules
from pnc_client.schemas.purges import Purge

router = APIRouter(prefix="/v1", tags=["purges"], route_class=ScopedRoute)


def _model(name: str) -> Find:
    return lambda session: models.get(session, name, purged=True)


def _version(name: str, number: int) -> Find:
    return lambda session: models.get_version(session, name, number, purged=True)


def _dataset(dataset_id: str) -> Find:
    return lambda session: datasets.get(session, dataset_id, purged=True)


def _module(module_id: str) -> Find:
    return lambda session: modules.get(session, module_id, purged=True)


@router.get("/models/{model}/purge", response_model=Purge, responses=documented(404))
@needs("read")
def plan_model_purge(model: Name, zoo: OpenZoo) -> Any:
    """The plan of a purge of a model and its versions: rows, bytes and blockers. The plan deletes nothing."""
    return Purge.of(purges.plan(zoo, _model(model)))


@router.post("/models/{model}/purge", response_model=Purge, responses=documented(404, 409))
@needs("admin")
def purge_model(model: Name, zoo: OpenZoo) -> Any:
    """Purge an archived model and all its versions. A new model may have the same name."""
    return Purge.of(purges.purge(zoo, _model(model)))


@router.get("/models/{model}/versions/{version}/purge", response_model=Purge, responses=documented(404))
@needs("read")
def plan_version_purge(model: Name, version: Number, zoo: OpenZoo) -> Any:
    """The plan of a purge of a version: rows, bytes and blockers. The plan deletes nothing."""
    return Purge.of(purges.plan(zoo, _version(model, version)))


@router.post("/models/{model}/versions/{version}/purge", response_model=Purge, responses=documented(404, 409))
@needs("admin")
def purge_version(model: Name, version: Number, zoo: OpenZoo) -> Any:
    """Purge an archived version and its weights. Its number is not used again."""
    return Purge.of(purges.purge(zoo, _version(model, version)))


@router.get("/datasets/{dataset}/purge", response_model=Purge, responses=documented(404))
@needs("read")
def plan_dataset_purge(dataset: datasets_api.Id, zoo: OpenZoo) -> Any:
    """The plan of a purge of a dataset: rows, bytes and blockers. The plan deletes nothing."""
    return Purge.of(purges.plan(zoo, _dataset(dataset)))


@router.post("/datasets/{dataset}/purge", response_model=Purge, responses=documented(404, 409))
@needs("admin")
def purge_dataset(dataset: datasets_api.Id, zoo: OpenZoo) -> Any:
    """Purge an archived dataset and its images. Jobs that have used it cannot be retried."""
    return Purge.of(purges.purge(zoo, _dataset(dataset)))


@router.get("/modules/{module}/purge", response_model=Purge, responses=documented(404))
@needs("read")
def plan_module_purge(module: modules_api.Id, zoo: OpenZoo) -> Any:
    """The plan of a purge of a module: rows, bytes and blockers. The plan deletes nothing."""
    return Purge.of(purges.plan(zoo, _module(module)))


@router.post("/modules/{module}/purge", response_model=Purge, responses=documented(404, 409))
@needs("admin")
def purge_module(module: modules_api.Id, zoo: OpenZoo) -> Any:
    """Purge an archived module, its bundles and its signature."""
    return Purge.of(purges.purge(zoo, _module(module)))
