"""Inference requests, forwarded to the serving process: image predictions and the Open Inference Protocol."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.api.problems import respond
from app.api.protocol import CALLS
from app.api.requests import OpenGateway
from app.api.scopes import ScopedRoute, needs
from app.deployments.gateway import RETRY_SECONDS, Gateway, Unreachable

router = APIRouter(include_in_schema=False, route_class=ScopedRoute)
"""Left out of the OpenAPI document: the protocol has a specification of its own, which its clients follow."""


@needs("read")
async def read(request: Request, gateway: OpenGateway) -> Response:
    """Forward a call of the protocol that changes nothing."""
    return await _call(request, gateway)


@needs("deploy")
async def change(request: Request, gateway: OpenGateway) -> Response:
    """Forward a call of the protocol that loads or unloads modules."""
    return await _call(request, gateway)


for _operation in CALLS:
    _endpoint = {"read": read, "deploy": change}[_operation.scope]
    router.add_api_route(_operation.path, _endpoint, methods=[_operation.method], name=_operation.name)


async def _call(request: Request, gateway: Gateway) -> Response:
    """Forward a call. Its path is built from the route's template and the matched parameters, not from the request."""
    template: str = request.scope["route"].path
    given: dict[str, str] = request.path_params
    parts = (given[part[1:-1]] if part.startswith("{") else part for part in template[1:].split("/"))
    try:
        return await gateway.forward(request, *parts)
    except Unreachable as error:  # the protocol has its own format of errors
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return JSONResponse({"error": str(error)}, 503, headers)


async def forward(request: Request, gateway: Gateway, *parts: str) -> Response:
    """Forward a request to the serving process.

    Args:
        request: The request.
        gateway: The client of the serving process.
        parts: Segments of the path to send it to, decoded.

    Returns:
        The answer; 503 with Retry-After if the serving process does not answer.
    """
    try:
        return await gateway.forward(request, *parts)
    except Unreachable as error:
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return respond(request.scope, 503, "serving_unreachable", str(error), headers=headers)
