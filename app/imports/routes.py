"""HTTP API of imports."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from app.api.documented import documented
from app.api.requests import DoOnce, ListOf, ReadSession, Reply
from app.api.scopes import ScopedRoute, needs
from app.imports import service as imports
from pnc_client.schemas import imports as wire
from pnc_client.schemas.shapes import Page

router = APIRouter(prefix="/v1", tags=["models"], route_class=ScopedRoute)
Id = Annotated[str, Path(description="Id of an import.", examples=["imp_019aa3b0c1d27f0e9d5c6b7a8f901234"])]


@router.post("/models/import", response_model=wire.Import, status_code=202, responses=documented(409))
@needs("write")
def create_import(body: wire.ImportCreate, once: DoOnce) -> Response:
    """Import a network from torchvision, timm, the Hugging Face Hub, MLflow or a URL; a worker fetches it."""
    spec, hosts = body.spec.to_dict() if body.spec else None, once.zoo.settings.import_hosts

    def work(session: Any) -> Reply:
        row = imports.submit(
            session, source=body.source, name=body.name, spec=spec, licence=body.licence,
            description=body.description, hosts=hosts,
        )  # fmt: skip
        return Reply(wire.Import.of(row), status=202, location=f"/v1/imports/{row.id}")

    return once(work)


@router.get("/imports", response_model=Page[wire.Import])
@needs("read")
def list_imports(session: ReadSession, query: ListOf) -> Any:
    """Imports, newest first."""
    found = imports.list_imports(session, query.window())
    return {**vars(found), "data": [wire.Import.of(row) for row in found.data]}


@router.get("/imports/{import_id}", response_model=wire.Import, responses=documented(404))
@needs("read")
def get_import(import_id: Id, session: ReadSession) -> Any:
    """One import."""
    return wire.Import.of(imports.get(session, import_id))


@router.post(
    "/imports/{import_id}/cancel",
    response_model=wire.Import,
    responses={202: {"model": wire.Import, "description": "The import's worker will stop"}, **documented(404, 409)},
)
@needs("write")
def cancel_import(import_id: Id, once: DoOnce) -> Response:
    """Cancel an import: a waiting one at once (200), a running one as soon as its worker stops (202)."""

    def work(session: Any) -> Reply:
        row = imports.cancel(session, import_id)
        return Reply(wire.Import.of(row), status=202 if row.state == "cancelling" else 200)

    return once(work)
