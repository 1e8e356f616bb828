"""`POST /v1/deployments/{d}/predict`: from an encoded image to classes with probabilities."""

from functools import partial

import torch
from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from app.api.leaving import GONE, Gone
from app.api.problems import respond
from app.db.isolation import parted
from app.process.pulse import STOPPED
from app.serving.answering import Host, body_of, chosen_ids, deadline, held, logits
from app.serving.auth import caller_of, qualified_name
from app.serving.canary.assigning import assigned
from app.serving.engine.capacity import Overloaded, TooLate
from app.serving.engine.engine import NotFinite, Stopped
from app.serving.loader.snapshot import Choice
from app.serving.protocol.tensors import BadRequest, TooManyImages
from pnc_client.schemas.deployments import ClassScore, Prediction, ServedModule
from pnc_core.errors import DataError
from pnc_core.images import Views

router = APIRouter(prefix="/v1/deployments")


@router.post("/{deployment}/predict")
async def predict(
    deployment: str,
    request: Request,
    modules: str | None = None,
    generation: int | None = Query(None, ge=1),
    module_set: str | None = None,
) -> Response:
    """Classify one image. The answer names the revision and the modules that computed it."""
    host = Host.of(request)
    try:
        snapshot = host.registry.get(qualified_name(request, deployment), generation)
        assignment = assigned(snapshot, chosen_ids(modules), module_set, is_drawn=generation is None)
        choice = assignment.choice
        with held(request):
            raw = bytes(await body_of(request))
            until = deadline(request)
            geometries = assignment.sees
            decode = partial(host.decoders.decode, raw, geometries, "body")
            pixels = await host.decoding.run(caller_of(request).workspace, decode, until)
            plain, *others = (torch.from_numpy(view)[None] for view in pixels)
            images = Views(plain, dict(zip(geometries[1:], others, strict=True)))
            found = await logits(request, assignment, images, until)
    except (DataError, BadRequest, NotFinite, TooManyImages, Overloaded, TooLate, Stopped) as error:
        return _refused(request, error)
    except (ClientDisconnect, Gone):
        return Response(status_code=GONE)
    return Response(_prediction(choice, found[0]).model_dump_json(), media_type="application/json")


def _refused(request: Request, error: Exception) -> Response:
    """Answer an error with a problem document."""
    settings, scope, later = Host.of(request).settings, request.scope, {"Retry-After": "1"}
    if isinstance(error, Overloaded):
        detail = (
            f"expected at most {settings.waiting_requests} requests, {settings.waiting_images} images and "
            f"{settings.waiting_bytes} bytes to wait, or a workspace's share of that, got more; try again in a moment"
        )
        return respond(scope, 503, "overloaded", detail, headers=later)
    if isinstance(error, TooLate):
        detail = f"expected an answer within {settings.answer_seconds:g} s, got none; try again"
        return respond(scope, 504, "too_late", detail)
    if isinstance(error, Stopped):
        return respond(scope, 503, STOPPED, str(error), headers=later)
    if isinstance(error, TooManyImages):
        return respond(scope, 413, "too_large", str(error))
    if isinstance(error, NotFinite):
        return respond(scope, 422, "not_finite", str(error))
    return respond(scope, 422, error.code if isinstance(error, DataError) else "invalid", str(error))


def _prediction(choice: Choice, found: torch.Tensor) -> Prediction:
    snapshot = choice.snapshot
    rows = zip(choice.classes, found.softmax(0).tolist(), found.tolist(), strict=True)
    scores = [ClassScore(name=name, probability=p, logit=logit) for name, p, logit in rows]
    return Prediction(
        deployment=parted(snapshot.deployment)[1],
        generation=snapshot.generation,
        target=snapshot.version,
        target_fingerprint=snapshot.fingerprint,
        module_set=choice.module_set,
        modules=[ServedModule(id=m.id, digest=m.digest) for m in choice.modules],
        classes=sorted(scores, key=lambda score: -score.probability),
    )
