"""HTTP API of canaries: start, change, read, promote and end them."""

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from app.api.documented import documented
from app.api.requests import IfMatch, OpenGateway, OpenZoo, ReadSession
from app.api.scopes import ScopedRoute, needs
from app.deployments.canary import service as canaries
from app.deployments.rollout import roll_out
from app.deployments.routes import LATER, Name, Wait
from app.deployments.service import Change
from app.process.threads import ROLLOUTS, on
from pnc_client.schemas.canaries import Canary, CanaryPut
from pnc_client.schemas.deployments import Deployment

router = APIRouter(prefix="/v1/deployments", tags=["deployments"], route_class=ScopedRoute)


@router.put("/{deployment}/canary", response_model=Deployment, responses={**LATER, **documented(404, 409, 412)})
@needs("deploy")
@on(ROLLOUTS)
def put_canary(
    deployment: Name,
    body: CanaryPut,
    request: Request,
    zoo: OpenZoo,
    gateway: OpenGateway,
    if_match: IfMatch,
    wait: Wait = None,
) -> Response:
    """Start a canary, or change its modules, share or mode; the same canary again changes nothing."""

    def work(session: Session) -> Change:
        modules, mode, share = body.modules, body.mode, body.share
        return canaries.put(session, deployment, modules, mode=mode, share=share, if_match=if_match)

    return roll_out(request, zoo, gateway, work, wait)


@router.get("/{deployment}/canary", response_model=Canary, responses=documented(404))
@needs("read")
def get_canary(deployment: Name, session: ReadSession) -> Any:
    """The canary of a deployment."""
    return Canary.of(canaries.get(session, deployment))


@router.delete("/{deployment}/canary", response_model=Deployment, responses={**LATER, **documented(404, 412)})
@needs("deploy")
@on(ROLLOUTS)
def end_canary(
    deployment: Name, request: Request, zoo: OpenZoo, gateway: OpenGateway, if_match: IfMatch, wait: Wait = None
) -> Response:
    """End a canary. The attached modules answer all requests again; without a canary nothing changes."""
    return roll_out(request, zoo, gateway, lambda s: canaries.end(s, deployment, if_match=if_match), wait)


@router.post(
    "/{deployment}/canary/promote", response_model=Deployment, responses={**LATER, **documented(404, 409, 412)}
)
@needs("deploy")
@on(ROLLOUTS)
def promote_canary(
    deployment: Name, request: Request, zoo: OpenZoo, gateway: OpenGateway, if_match: IfMatch, wait: Wait = None
) -> Response:
    """Attach exactly the modules of the canary, and end the canary, in one revision."""
    return roll_out(request, zoo, gateway, lambda s: canaries.promote(s, deployment, if_match=if_match), wait)
