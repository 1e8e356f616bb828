"""Deployments: what is served, with which modules attached, and predictions."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from app.api.documented import documented
from app.api.requests import IfMatch, ListOf, OpenGateway, OpenZoo, ReadSession
from app.api.scopes import ScopedRoute, needs
from app.db.isolation import qualified, workspace_of
from app.deployments import replicas
from app.deployments import service as deployments
from app.deployments.inference import pass_on
from app.deployments.rollout import announce, roll_out
from app.names import check_name
from app.process.threads import ROLLOUTS, on
from pnc_client.schemas import deployments as wire
from pnc_client.schemas.shapes import Page

router = APIRouter(prefix="/v1/deployments", tags=["deployments"], route_class=ScopedRoute)
Name = Annotated[str, Path(description="Name of a deployment.", examples=["digits"])]
ModuleId = Annotated[str, Path(description="Id of a module.", examples=["mod_019aa3b0c1d27f0e9d5c6b7a8f901234"])]
Wait = Annotated[
    Literal["all"] | None, Query(description="`all`: answer when every living replica serves it, not only one.")
]
_LATER: dict[int | str, dict[str, Any]] = {
    202: {"model": wire.Deployment, "description": "Wanted; the serving process has not said yet that it serves it"}
}
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_IMAGES = {
    "requestBody": {
        "required": True,
        "content": {"image/png": _IMAGE, "image/jpeg": _IMAGE, "image/webp": _IMAGE},
    }
}


@router.put("/{deployment}", response_model=wire.Deployment, responses={**_LATER, **documented(409, 412)})
@needs("deploy")
@on(ROLLOUTS)
def put_deployment(
    deployment: Name,
    body: wire.DeploymentPut,
    request: Request,
    zoo: OpenZoo,
    gateway: OpenGateway,
    if_match: IfMatch,
    wait: Wait = None,
) -> Response:
    """Serve a version under a name; the same version again changes nothing."""
    return roll_out(
        request, zoo, gateway, lambda s: deployments.put(s, deployment, body.target, if_match=if_match), wait
    )


@router.get("", response_model=Page[wire.Deployment])
@needs("read")
def list_deployments(session: ReadSession, query: ListOf) -> Any:
    """Deployments, newest first."""
    found = deployments.list_deployments(session, query.window())
    wanted = deployments.revisions(session, found.data)
    return {**vars(found), "data": [wire.Deployment.of(row, wanted[row.id]) for row in found.data]}


@router.get("/{deployment}", response_model=wire.Deployment, responses=documented(404))
@needs("read")
def get_deployment(deployment: Name, session: ReadSession, response: Response) -> Any:
    """One deployment: what is wanted and what is served."""
    row = deployments.get(session, deployment)
    response.headers["ETag"] = f'"{row.generation}"'
    return wire.Deployment.of(row, deployments.revision(session, row))


@router.delete("/{deployment}", status_code=204, responses=documented(404, 412))
@needs("deploy")
@on(ROLLOUTS)
def delete_deployment(deployment: Name, zoo: OpenZoo, gateway: OpenGateway, if_match: IfMatch) -> None:
    """Serve it no more."""
    with zoo.database.write() as session:
        generation = deployments.delete(session, deployment, if_match=if_match)
        place = qualified(workspace_of(session), deployment)
    announce(gateway, place, generation)


@router.put("/{deployment}/modules", response_model=wire.Deployment, responses={**_LATER, **documented(404, 409, 412)})
@needs("deploy")
@on(ROLLOUTS)
def set_modules(
    deployment: Name,
    body: wire.ModulesPut,
    request: Request,
    zoo: OpenZoo,
    gateway: OpenGateway,
    if_match: IfMatch,
    wait: Wait = None,
) -> Response:
    """Attach and detach what it takes to have exactly these modules: one revision, no state in between."""
    return roll_out(
        request, zoo, gateway, lambda s: deployments.set_modules(s, deployment, body.modules, if_match=if_match), wait
    )


@router.get("/{deployment}/revisions", response_model=Page[wire.Revision], responses=documented(404))
@needs("read")
def list_revisions(deployment: Name, session: ReadSession, query: ListOf) -> Any:
    """Everything that the deployment was to serve, newest first."""
    found = deployments.list_revisions(session, deployment, query.window())
    return {**vars(found), "data": [wire.Revision.of(row) for row in found.data]}


@router.get("/{deployment}/replicas", response_model=Page[wire.Replica], responses=documented(404))
@needs("read")
def list_replicas(deployment: Name, session: ReadSession, query: ListOf) -> Any:
    """What every living serving process says about a deployment."""
    deployments.get(session, deployment)
    found = replicas.list_replicas(session, query.window())
    said = [(row.id, replicas.observation(session, row, deployment)) for row in found.data]
    return {**vars(found), "data": [wire.Replica.of(name, one) for name, one in said]}


@router.post(
    "/{deployment}/rollback", response_model=wire.Deployment, responses={**_LATER, **documented(404, 409, 412)}
)
@needs("deploy")
@on(ROLLOUTS)
def rollback(
    deployment: Name,
    body: wire.Rollback,
    request: Request,
    zoo: OpenZoo,
    gateway: OpenGateway,
    if_match: IfMatch,
    wait: Wait = None,
) -> Response:
    """Want again what an earlier generation was; this makes a new generation."""
    return roll_out(
        request, zoo, gateway, lambda s: deployments.rollback(s, deployment, body.generation, if_match=if_match), wait
    )


@router.put(
    "/{deployment}/modules/{module}", response_model=wire.Deployment, responses={**_LATER, **documented(404, 409, 412)}
)
@needs("deploy")
@on(ROLLOUTS)
def attach_module(
    deployment: Name,
    module: ModuleId,
    request: Request,
    zoo: OpenZoo,
    gateway: OpenGateway,
    if_match: IfMatch,
    wait: Wait = None,
) -> Response:
    """Attach a module; one that is attached already changes nothing."""
    return roll_out(request, zoo, gateway, lambda s: deployments.attach(s, deployment, module, if_match=if_match), wait)


@router.delete(
    "/{deployment}/modules/{module}", response_model=wire.Deployment, responses={**_LATER, **documented(404, 412)}
)
@needs("deploy")
@on(ROLLOUTS)
def detach_module(
    deployment: Name,
    module: ModuleId,
    request: Request,
    zoo: OpenZoo,
    gateway: OpenGateway,
    if_match: IfMatch,
    wait: Wait = None,
) -> Response:
    """Detach a module; the target is again what it was without it."""
    return roll_out(request, zoo, gateway, lambda s: deployments.detach(s, deployment, module, if_match=if_match), wait)


@router.post(
    "/{deployment}/predict",
    response_model=wire.Prediction,
    responses=documented(404, 413, 503),
    openapi_extra=_IMAGES,
)
@needs("read")
async def predict(
    deployment: Name,
    request: Request,
    gateway: OpenGateway,
    modules: Annotated[str | None, Query(description="Ids of the modules that shall answer; all by default.")] = None,
    generation: Annotated[int | None, Query(ge=1, description="An earlier generation, while it is kept.")] = None,
) -> Response:
    """Classify an image: the body is a PNG, JPEG or WebP file as it is."""
    del modules, generation  # the serving process reads them
    check_name(deployment, "path:deployment")
    return await pass_on(request, gateway, "v1", "deployments", deployment, "predict")
