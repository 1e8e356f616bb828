"""Inference goes through to the serving process: image predictions, and the whole Open Inference Protocol."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.api.problems import respond
from app.api.protocol import CALLS
from app.api.requests import OpenGateway
from app.api.scopes import ScopedRoute, needs
from app.deployments.gateway import RETRY_SECONDS, Gateway, Unreachable

router = APIRouter(include_in_schema=False, route_class=ScopedRoute)
"""Not in the schema: the protocol is specified elsewhere, and its clients do not read it here."""


@needs("read")
async def ask(request: Request, gateway: OpenGateway) -> Response:
    """A call of the protocol that changes nothing."""
    return await _call(request, gateway)


@needs("deploy")
async def change(request: Request, gateway: OpenGateway) -> Response:
    """A call of the protocol that changes what is served."""
    return await _call(request, gateway)


for _one in CALLS:
    _endpoint = {"read": ask, "deploy": change}[_one.scope]
    router.add_api_route(_one.path, _endpoint, methods=[_one.method], name=_one.name)


async def _call(request: Request, gateway: Gateway) -> Response:
    """Send the call on: with the path of its route, filled with what was matched, and nothing else of its own path."""
    template: str = request.scope["route"].path
    given: dict[str, str] = request.path_params
    parts = (given[part[1:-1]] if part.startswith("{") else part for part in template[1:].split("/"))
    try:
        return await gateway.forward(request, *parts)
    except Unreachable as error:  # in the protocol's own form
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return JSONResponse({"error": str(error)}, 503, headers)


async def pass_on(request: Request, gateway: Gateway, *parts: str) -> Response:
    """Hand a request to the serving process, at the path of these parts; if that is away, say when to come again."""
    try:
        return await gateway.forward(request, *parts)
    except Unreachable as error:
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return respond(request.scope, 503, "serving_unreachable", str(error), headers=headers)
