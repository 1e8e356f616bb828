"""Change what a deployment shall serve, announce it, and pass serving's verdict on."""

from collections.abc import Callable

import anyio.from_thread
from fastapi import Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.api.gateway import Gateway, Verdict
from app.api.problems import respond
from app.api.wire.deployments import Deployment
from app.api.wire.problems import Fault
from app.zoo import deployments
from app.zoo.deployments import Change
from app.zoo.zoo import Zoo


def roll_out(request: Request, zoo: Zoo, gateway: Gateway, work: Callable[[Session], Change]) -> Response:
    """Commit a change, then ask the serving process for it.

    Returns:
        200 once it is served, 202 while the serving process has not said so, or
        its refusal as a problem document; it has taken the change back then.
    """
    with zoo.database.write() as session:
        change = work(session)
        name, generation = change.deployment.name, change.deployment.generation
    verdict = announce(gateway, name, generation) if change.changed else None
    if verdict is not None and verdict.refusal is not None:
        return _refused(request, verdict)
    return _describe(zoo, name, served=verdict is not None and verdict.applied)


def announce(gateway: Gateway, name: str, generation: int) -> Verdict:
    """Tell the serving process that something is to do; call it from a route's own thread."""
    return anyio.from_thread.run(gateway.sync, name, generation)


def _refused(request: Request, verdict: Verdict) -> Response:
    document = verdict.refusal or {}
    faults = [Fault.model_validate(fault) for fault in document.get("errors", [])]
    status, code = int(document.get("status", 409)), str(document.get("code", "refused"))
    detail = f"the serving process refused, and the change was taken back: {document.get('detail', 'no reason given')}"
    return respond(request.scope, status, code, detail, faults)


def _describe(zoo: Zoo, name: str, *, served: bool) -> Response:
    with zoo.database.read() as session:
        row = deployments.get(session, name)
        answer = Deployment.of(row, deployments.revision(session, row))
    observed = answer.observed
    served = served or (observed.generation == answer.generation and observed.problem is None)
    headers = {"ETag": f'"{answer.generation}"'}
    return Response(answer.model_dump_json(), 200 if served else 202, headers, media_type="application/json")
