"""Inference goes through to the serving process: image predictions, and the whole Open Inference Protocol."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.api.gateway import RETRY_SECONDS, Gateway, Unreachable
from app.api.problems import respond
from app.api.requests import OpenGateway
from app.api.scopes import ScopedRoute, needs

router = APIRouter(prefix="/v2", include_in_schema=False, route_class=ScopedRoute)
"""Not in the schema: the protocol is specified elsewhere, and its clients do not read it here."""


@router.api_route("", methods=["GET"])
@router.api_route("/{path:path}", methods=["GET", "POST"])
@needs("read")
async def protocol(request: Request, gateway: OpenGateway, path: str = "") -> Response:
    """Any call of the protocol."""
    del path  # it is passed on as it came
    try:
        return await gateway.forward(request)
    except Unreachable as error:  # in the protocol's own form
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return JSONResponse({"error": str(error)}, 503, headers)


async def pass_on(request: Request, gateway: Gateway) -> Response:
    """Hand a request to the serving process; if that is away, say so and when to come again."""
    try:
        return await gateway.forward(request)
    except Unreachable as error:
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return respond(request.scope, 503, "serving_unreachable", str(error), headers=headers)
