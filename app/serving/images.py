"""`POST /v1/deployments/{d}/predict`: an encoded image in, classes with probabilities out."""

import torch
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from app.api.problems import respond
from app.api.wire.deployments import ClassScore, Prediction, ServedModule
from app.serving.answering import Host, chosen_ids, logits
from app.serving.door import place
from app.serving.engine import Overloaded, TooLate
from app.serving.snapshot import Choice
from app.zoo.isolation import parted
from pnc_core.errors import DataError

router = APIRouter(prefix="/v1/deployments")


@router.post("/{deployment}/predict")
async def predict(
    deployment: str, request: Request, modules: str | None = None, generation: int | None = Query(None, ge=1)
) -> Response:
    """Classify one image; the answer names the revision and the modules that gave it."""
    host = Host.of(request)
    choice = host.registry.get(place(request, deployment), generation).chosen(chosen_ids(modules))
    raw = await request.body()
    try:
        pixels = await run_in_threadpool(host.decoders.decode, raw, choice.snapshot.spec.input_size, "body")
        found = (await logits(request, choice, torch.from_numpy(pixels)[None]))[0]
    except DataError as error:
        return respond(request.scope, 422, error.code, str(error))
    except Overloaded:
        detail = f"expected at most {host.settings.waiting_requests} requests to wait, got more; try again in a moment"
        return respond(request.scope, 503, "overloaded", detail, headers={"Retry-After": "1"})
    except TooLate:
        detail = f"expected an answer within {host.settings.answer_seconds:g} s, got none; try again"
        return respond(request.scope, 504, "too_late", detail)
    return Response(_prediction(choice, found).model_dump_json(), media_type="application/json")


def _prediction(choice: Choice, found: torch.Tensor) -> Prediction:
    snapshot = choice.snapshot
    rows = zip(choice.classes, found.softmax(0).tolist(), found.tolist(), strict=True)
    scores = [ClassScore(name=name, probability=p, logit=logit) for name, p, logit in rows]
    return Prediction(
        deployment=parted(snapshot.deployment)[1],
        generation=snapshot.generation,
        target=snapshot.version,
        target_fingerprint=snapshot.fingerprint,
        modules=[ServedModule(id=m.id, digest=m.digest) for m in choice.modules],
        classes=sorted(scores, key=lambda score: -score.probability),
    )
