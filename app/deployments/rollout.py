"""Rollouts: commit a change of a deployment, announce it to the serving process, and answer with the result."""

import time
from collections.abc import Callable

import anyio.from_thread
from fastapi import Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.api.problems import respond
from app.db.isolation import qualified
from app.deployments import replicas
from app.deployments import service as deployments
from app.deployments.gateway import Gateway, Verdict
from app.deployments.replicas import Observation
from app.deployments.service import Change
from app.zoo import Zoo
from pnc_client.schemas.deployments import Deployment
from pnc_client.schemas.problems import Fault

LOOK_SECONDS = 0.05
"""Interval at which the replicas' reports are read with `wait=all`."""


def roll_out(
    request: Request, zoo: Zoo, gateway: Gateway, work: Callable[[Session], Change], wait: str | None = None
) -> Response:
    """Commit a change of a deployment, and wait for the serving process.

    Args:
        request: The request for the change.
        zoo: The zoo, as the caller's workspace sees it.
        gateway: The client of the serving process.
        work: Makes the change.
        wait: `all`: answer when every living replica serves the change; None: when one replica serves it.

    Returns:
        200 if the change is served; 202 if the serving process has not answered in time; a problem document if the
        serving process refused the change and reverted it.
    """
    with zoo.database.write() as session:
        change = work(session)
        name, generation = change.deployment.name, change.deployment.generation
        place = qualified(change.deployment.workspace, name)
    verdict = announce(gateway, place, generation) if change.changed else None
    if verdict is not None and verdict.refusal is not None:
        return _refused(request, verdict)
    if wait is None:
        return _describe(zoo, name, served=verdict is not None and verdict.applied)
    others = _await_all(zoo, name, generation)
    there = [o for o in others.values() if o is not None and o.generation == generation and not o.waits]
    problems = [o.problem for o in there if o.problem]
    if problems:
        reason = problems[0].get("detail", "no reason given")
        detail = f"a replica does not serve generation {generation}, but other replicas may; its reason: {reason}"
        return respond(request.scope, 409, str(problems[0].get("code", "refused")), detail)
    return _describe(zoo, name, served=_all_observe(others, generation), by_all=True)


def _await_all(zoo: Zoo, name: str, generation: int) -> dict[str, Observation | None]:
    """The reports of all living replicas, once all have tried this generation or `serving_timeout` has passed."""
    deadline = time.monotonic() + zoo.settings.serving_timeout
    while True:
        with zoo.database.read() as session:
            found = replicas.observations(session, name)
        if _all_observe(found, generation) or time.monotonic() > deadline:
            return found
        time.sleep(LOOK_SECONDS)


def _all_observe(found: dict[str, Observation | None], generation: int) -> bool:
    return bool(found) and all(
        one is not None and one.generation >= generation and not one.waits for one in found.values()
    )


def announce(gateway: Gateway, name: str, generation: int) -> Verdict:
    """Announce a new generation to the serving process; call from the thread of a synchronous route."""
    return anyio.from_thread.run(gateway.sync, name, generation)


def _refused(request: Request, verdict: Verdict) -> Response:
    document = verdict.refusal or {}
    faults = [Fault.model_validate(fault) for fault in document.get("errors", [])]
    status, code = int(document.get("status", 409)), str(document.get("code", "refused"))
    detail = f"the serving process refused the change, which was reverted: {document.get('detail', 'no reason given')}"
    return respond(request.scope, status, code, detail, faults)


def _describe(zoo: Zoo, name: str, *, served: bool, by_all: bool = False) -> Response:
    with zoo.database.read() as session:
        row = deployments.get(session, name)
        answer = Deployment.of(row, deployments.revision(session, row))
    observed = answer.observed
    one = observed.generation == answer.generation and observed.problem is None
    served = served or (one and not by_all)
    headers = {"ETag": f'"{answer.generation}"'}
    return Response(answer.model_dump_json(), 200 if served else 202, headers, media_type="application/json")
