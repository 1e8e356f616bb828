"""HTTP API of modules and their bundles."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from app.api.documented import documented
from app.api.requests import ArchiveQuery, OpenZoo, ReadSession
from app.api.scopes import ScopedRoute, needs
from app.modules import service as modules
from app.store import downloads
from app.store.objects import Stored
from pnc_client.schemas import modules as wire
from pnc_client.schemas.shapes import Archiving, Page

router = APIRouter(prefix="/v1/modules", tags=["modules"], route_class=ScopedRoute)
Id = Annotated[str, Path(description="Id of a module.", examples=["mod_019aa3b0c1d27f0e9d5c6b7a8f901234"])]
Payload = Annotated[
    wire.Payload, Query(description="A `thin` bundle can be used only with the source's weights; `full` contains them.")
]


class ModulesQuery(ArchiveQuery):
    """Query of the list of modules."""

    target_fingerprint: str | None = None
    """Only modules for the target with this fingerprint."""


@router.get("", response_model=Page[wire.Module])
@needs("read")
def list_modules(session: ReadSession, query: Annotated[ModulesQuery, Query()]) -> Any:
    """Modules, newest first."""
    fitting, archived = query.target_fingerprint, query.archived
    found = modules.list_modules(session, query.window(), target_fingerprint=fitting, archived=archived)
    return {**vars(found), "data": [wire.Module.of(row) for row in found.data]}


@router.get("/{module}", response_model=wire.Module, responses=documented(404))
@needs("read")
def get_module(module: Id, session: ReadSession) -> Any:
    """One module."""
    return wire.Module.of(modules.get(session, module, *modules.AS_SHOWN))


@router.patch("/{module}", response_model=wire.Module, responses=documented(404))
@needs("write")
def change_module(module: Id, body: Archiving, zoo: OpenZoo) -> Any:
    """Archive or restore a module."""
    with zoo.database.write() as session:
        return wire.Module.of(modules.set_archived(session, module, body.archived))


@router.delete("/{module}", status_code=204, responses=documented(404))
@needs("write")
def archive_module(module: Id, zoo: OpenZoo) -> None:
    """Archive a module. Lists leave it out, and it cannot be attached. Deployments that have it keep serving it."""
    with zoo.database.write() as session:
        modules.set_archived(session, module, archived=True)


@router.get("/{module}/manifest", response_model=wire.Manifest, responses=documented(404))
@needs("read")
def get_manifest(module: Id, session: ReadSession) -> Any:
    """The manifest of a module's bundle, and the job's measurements of the module on held-out images."""
    row = modules.get(session, module)
    return wire.Manifest(module=module, manifest=row.manifest, evidence=row.evidence)


@router.get("/{module}/bundle", response_class=Response, responses={**downloads.DOCUMENTED, **documented(404, 416)})
@needs("read")
def download_bundle(
    module: Id,
    request: Request,
    zoo: OpenZoo,
    payload: Payload = "full",
) -> Response:
    """Download a module's bundle, a safetensors file. `ETag` and `Repr-Digest` contain its SHA-256."""
    with zoo.database.read() as session:
        bundle = modules.bundle(session, module, payload)
    return downloads.send(
        request, zoo.store, Stored(bundle.key, bundle.digest, bundle.bytes), f"{module}.{payload}.safetensors"
    )


router.add_api_route("/{module}/bundle", download_bundle, methods=["HEAD"], include_in_schema=False)
