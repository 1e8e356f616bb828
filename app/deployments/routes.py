"""HTTP API of deployments: targets, attached modules, revisions, replicas and predictions."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.api.documented import documented
from app.api.requests import IfMatch, ListOf, OpenGateway, OpenZoo, ReadSession
from app.api.scopes import ScopedRoute, needs
from app.db.isolation import qualified, workspace_of
from app.deployments import replicas
from app.deployments import service as deployments
from app.deployments.inference import forward
from app.deployments.rollout import announce, roll_out
from app.names import check_name
from app.process.threads import ROLLOUTS, on
from pnc_client.schemas import deployments as wire
from pnc_client.schemas.canaries import ModuleSet
from pnc_client.schemas.shapes import Page

router = APIRouter(prefix="/v1/deployments", tags=["deployments"], route_class=ScopedRoute)
Name = Annotated[str, Path(description="Name of a deployment.", examples=["digits"])]
ModuleId = Annotated[str, Path(description="Id of a module.", examples=["mod_019aa3b0c1d27f0e9d5c6b7a8f901234"])]
Wait = Annotated[
    Literal["all"] | None,
    Query(description="`all`: answer when every living replica serves the change, not only one replica."),
]
LATER: dict[int | str, dict[str, Any]] = {
    202: {"model": wire.Deployment, "description": "Accepted; the serving process does not serve the change yet"}
}
"""OpenAPI entry of a change that is not served yet."""
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_IMAGES = {
    "requestBody": {
        "required": True,
        "content": {"image/png": _IMAGE, "image/jpeg": _IMAGE, "image/webp": _IMAGE},
    }
}
_FILES = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": _IMAGE["schema"]}},
                }
            }
        },
    }
}


def _prediction_query(
    modules: Annotated[str | None, Query(description="Ids of the modules to use; default: all attached.")] = None,
    generation: Annotated[int | None, Query(ge=1, description="An earlier generation that is still loaded.")] = None,
    module_set: Annotated[
        ModuleSet | None,
        Query(description="`main`: the attached modules. `canary`: those of the canary. Default: drawn by its share."),
    ] = None,
    top: Annotated[
        int | None, Query(ge=1, description="Number of the most probable classes; default: all classes.")
    ] = None,
) -> None:
    """Documents and checks the query of a prediction, which the serving process reads."""
    del modules, generation, module_set, top


@router.put("/{deployment}", response_model=wire.Deployment, responses={**LATER, **documented(409, 412)})
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
    """One deployment: its desired state and the state that is served."""
    row = deployments.get(session, deployment)
    response.headers["ETag"] = f'"{row.generation}"'
    return wire.Deployment.of(row, deployments.revision(session, row))


@router.delete("/{deployment}", status_code=204, responses=documented(404, 412))
@needs("deploy")
@on(ROLLOUTS)
def delete_deployment(deployment: Name, zoo: OpenZoo, gateway: OpenGateway, if_match: IfMatch) -> None:
    """Stop serving a deployment and delete it."""
    with zoo.database.write() as session:
        generation = deployments.delete(session, deployment, if_match=if_match)
        place = qualified(workspace_of(session), deployment)
    announce(gateway, place, generation)


@router.put("/{deployment}/modules", response_model=wire.Deployment, responses={**LATER, **documented(404, 409, 412)})
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
    """Attach exactly these modules and detach all others, in one revision."""
    return roll_out(
        request, zoo, gateway, lambda s: deployments.set_modules(s, deployment, body.modules, if_match=if_match), wait
    )


@router.get("/{deployment}/revisions", response_model=Page[wire.Revision], responses=documented(404))
@needs("read")
def list_revisions(deployment: Name, session: ReadSession, query: ListOf) -> Any:
    """Revisions of a deployment, newest first."""
    found = deployments.list_revisions(session, deployments.get(session, deployment), query.window())
    return {**vars(found), "data": [wire.Revision.of(row) for row in found.data]}


@router.get("/{deployment}/replicas", response_model=Page[wire.Replica], responses=documented(404))
@needs("read")
def list_replicas(deployment: Name, session: ReadSession, query: ListOf) -> Any:
    """The report of each living serving process about a deployment."""
    deployments.get(session, deployment)
    found = replicas.list_replicas(session, query.window())
    reports = [(row.id, replicas.observation(session, row, deployment)) for row in found.data]
    return {**vars(found), "data": [wire.Replica.of(name, report) for name, report in reports]}


@router.post("/{deployment}/rollback", response_model=wire.Deployment, responses={**LATER, **documented(404, 409, 412)})
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
    """Serve the target and modules of an earlier generation again, as a new generation."""
    return roll_out(
        request, zoo, gateway, lambda s: deployments.rollback(s, deployment, body.generation, if_match=if_match), wait
    )


@router.put(
    "/{deployment}/modules/{module}", response_model=wire.Deployment, responses={**LATER, **documented(404, 409, 412)}
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
    """Attach a module; a module that is attached already changes nothing."""
    return roll_out(request, zoo, gateway, lambda s: deployments.attach(s, deployment, module, if_match=if_match), wait)


@router.delete(
    "/{deployment}/modules/{module}", response_model=wire.Deployment, responses={**LATER, **documented(404, 412)}
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
    """Detach a module. The target's predictions are again exactly those without the module."""
    return roll_out(request, zoo, gateway, lambda s: deployments.detach(s, deployment, module, if_match=if_match), wait)


@router.post(
    "/{deployment}/predict",
    response_model=wire.Prediction,
    responses=documented(404, 413, 503),
    openapi_extra=_IMAGES,
    dependencies=[Depends(_prediction_query)],
)
@needs("read")
async def predict(
    deployment: Name,
    request: Request,
    gateway: OpenGateway,
) -> Response:
    """Classify an image. The body is the content of an image file, such as PNG, JPEG, WebP or TIFF."""
    check_name(deployment, "path:deployment")
    return await forward(request, gateway, "v1", "deployments", deployment, "predict")


@router.post(
    "/{deployment}/predict/batch",
    response_model=wire.Predictions,
    responses=documented(404, 413, 503),
    openapi_extra=_FILES,
    dependencies=[Depends(_prediction_query)],
)
@needs("read")
async def predict_batch(
    deployment: Name,
    request: Request,
    gateway: OpenGateway,
) -> Response:
    """Classify several images with the same modules. The body is a form whose files are images.

    A file that is no image gets a reason in place of classes, and the others are classified.
    """
    check_name(deployment, "path:deployment")
    return await forward(request, gateway, "v1", "deployments", deployment, "predict", "batch")
