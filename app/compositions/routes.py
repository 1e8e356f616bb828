"""HTTP API of compositions."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from app.api.documented import documented
from app.api.requests import DoOnce, ListQuery, OpenZoo, ReadSession, Reply
from app.api.scopes import ScopedRoute, needs
from app.compositions import service as compositions
from app.deployments import service as deployments
from app.store import downloads
from pnc_client.schemas import compositions as wire
from pnc_client.schemas.shapes import Page

router = APIRouter(prefix="/v1/compositions", tags=["compositions"], route_class=ScopedRoute)
Id = Annotated[str, Path(description="Id of a composition.", examples=["cmp_019aa3b0c1d27f0e9d5c6b7a8f901234"])]


class CompositionsQuery(ListQuery):
    """Query of the list of compositions."""

    module: str | None = None
    """Only compositions with this module."""


@router.post("", response_model=wire.Composition, status_code=202, responses=documented(404, 409))
@needs("write")
def create_composition(body: wire.CompositionCreate, once: DoOnce) -> Response:
    """Fit the numbers that a set of modules needs together on one target; a worker does it."""

    def work(session: Any) -> Reply:
        row = compositions.submit(
            session, target=body.target, module_ids=body.modules, dataset_id=body.dataset, head=body.head,
            keep_anyway=body.keep_anyway,
        )  # fmt: skip
        return Reply(wire.Composition.of(row), status=202, location=f"/v1/compositions/{row.id}")

    return once(work)


@router.get("", response_model=Page[wire.Composition])
@needs("read")
def list_compositions(session: ReadSession, query: Annotated[CompositionsQuery, Query()]) -> Any:
    """Compositions, newest first."""
    found = compositions.list_compositions(session, query.window(), module=query.module)
    return {**vars(found), "data": [wire.Composition.of(row) for row in found.data]}


@router.get("/{composition}", response_model=wire.Composition, responses=documented(404))
@needs("read")
def get_composition(composition: Id, session: ReadSession) -> Any:
    """One composition."""
    return wire.Composition.of(compositions.get(session, composition))


@router.get("/{composition}/file", response_class=Response, responses={**downloads.DOCUMENTED, **documented(404, 416)})
@needs("read")
def download_composition(composition: Id, request: Request, zoo: OpenZoo) -> Response:
    """Download a composition, a safetensors file. `ETag` and `Repr-Digest` contain its SHA-256."""
    with zoo.database.read() as session:
        stored = compositions.stored(session, composition)
    return downloads.send(request, zoo.store, stored, f"{composition}.safetensors")


router.add_api_route("/{composition}/file", download_composition, methods=["HEAD"], include_in_schema=False)


@router.post(
    "/{composition}/cancel",
    response_model=wire.Composition,
    responses={202: {"model": wire.Composition, "description": "Its worker will stop"}, **documented(404, 409)},
)
@needs("write")
def cancel_composition(composition: Id, once: DoOnce) -> Response:
    """Cancel a composition: a waiting one at once (200), a running one as soon as its worker stops (202)."""

    def work(session: Any) -> Reply:
        row = compositions.cancel(session, composition)
        return Reply(wire.Composition.of(row), status=202 if row.state == "cancelling" else 200)

    return once(work)


@router.delete("/{composition}", status_code=204, responses=documented(404, 409))
@needs("write")
def delete_composition(composition: Id, zoo: OpenZoo) -> None:
    """Delete a composition that has ended and that no deployment uses."""
    with zoo.database.write() as session:
        deployments.check_unused(session, compositions.get(session, composition, lock=True))
        compositions.delete(session, composition)
