"""`POST /v1/deployments/{d}/predict` and `.../predict/batch`: from encoded images to classes with probabilities."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

import torch
from fastapi import APIRouter, Query, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from torch import Tensor

from app.api.leaving import GONE, Gone
from app.api.problems import respond
from app.db.isolation import parted
from app.process.pulse import STOPPED
from app.serving.answering import Host, body_of, chosen_ids, deadline, held, logits
from app.serving.auth import caller_of, qualified_name
from app.serving.canary.assigning import Assignment, assigned
from app.serving.engine.capacity import Overloaded, TooLate
from app.serving.engine.engine import NotFinite, Stopped
from app.serving.loader.snapshot import Choice
from app.serving.protocol.tensors import BadRequest, TooManyImages
from pnc_client.schemas.deployments import ClassScore, ImagePrediction, Prediction, Predictions, ServedModule
from pnc_core.errors import DataError
from pnc_core.images import Views

MOST_IMAGES = 256
"""Largest number of images in one request."""
MOST_NAME = 200
"""Characters of a file's name that an answer repeats."""
REFUSALS = (DataError, BadRequest, NotFinite, TooManyImages, Overloaded, TooLate, Stopped)
T = TypeVar("T")

router = APIRouter(prefix="/v1/deployments")
Generation = Annotated[int | None, Query(ge=1)]
Top = Annotated[int | None, Query(ge=1)]


@router.post("/{deployment}/predict")
async def predict(
    deployment: str,
    request: Request,
    modules: str | None = None,
    generation: Generation = None,
    module_set: str | None = None,
    top: Top = None,
) -> Response:
    """Classify one image. The answer names the revision and the modules that computed it."""
    try:
        assignment = _assignment(request, deployment, modules, generation, module_set)
        with held(request):
            raw = bytes(await body_of(request))
            until = deadline(request)
            images = _stacked([await _decoded(request, assignment, raw, "body", until)], assignment)
            found = await logits(request, assignment, images, until)
    except REFUSALS as error:
        return _refused(request, error)
    except (ClientDisconnect, Gone):
        return Response(status_code=GONE)
    return _json(_prediction(assignment.choice, found[0], top))


@router.post("/{deployment}/predict/batch")
async def predict_batch(
    deployment: str,
    request: Request,
    modules: str | None = None,
    generation: Generation = None,
    module_set: str | None = None,
    top: Top = None,
) -> Response:
    """Classify the files of a form. One snapshot and one set of modules answer all of them."""
    host = Host.of(request)
    try:
        assignment = _assignment(request, deployment, modules, generation, module_set)
        with held(request):
            files = await _files_of(request)
            until = deadline(request)
            decoded = await _all_of([_tried(request, assignment, file, until) for file in files])
            good = [views for views in decoded if not isinstance(views, str)]
            found = torch.empty(0)
            if good:
                found = await logits(request, assignment, _stacked(good, assignment), until)
        write = partial(_predictions, assignment.choice, [file.name for file in files], decoded, found, top)
        return await host.writing.run(caller_of(request).workspace, lambda: _json(write()), until)
    except REFUSALS as error:
        return _refused(request, error)
    except (ClientDisconnect, Gone):
        return Response(status_code=GONE)


@dataclass(frozen=True)
class _File:
    name: str
    raw: bytes


async def _files_of(request: Request) -> list[_File]:
    """The files of a form. The guard limits the size of the form.

    Raises:
        BadRequest: the body is no form, or it has no files, fields that are no files, or too many files.
        ClientDisconnect: the client has disconnected before the end of the body.
    """
    try:
        async with request.form(max_files=MOST_IMAGES, max_fields=0) as form:
            parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
            files = [_File((part.filename or "")[:MOST_NAME], await part.read()) for part in parts]
    except HTTPException as error:
        raise BadRequest(f"expected a form of at most {MOST_IMAGES} files, got: {error.detail}") from None
    if not files:
        raise BadRequest("expected multipart/form-data with at least one file, got none; send `-F images=@cat.jpg`")
    return files


async def _all_of(work: Sequence[Awaitable[T]]) -> list[T]:
    """The results of all; if one fails, the others are cancelled, and end before this returns."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _assignment(
    request: Request, deployment: str, modules: str | None, generation: int | None, module_set: str | None
) -> Assignment:
    snapshot = Host.of(request).registry.get(qualified_name(request, deployment), generation)
    return assigned(snapshot, chosen_ids(modules), module_set, is_drawn=generation is None)


async def _tried(request: Request, assignment: Assignment, file: _File, until: float) -> list[Tensor] | str:
    """The views of an image, or the reason why it cannot be decoded."""
    try:
        return await _decoded(request, assignment, file.raw, file.name or "file", until)
    except DataError as error:
        return str(error)


async def _decoded(request: Request, assignment: Assignment, raw: bytes, where: str, until: float) -> list[Tensor]:
    """One image as each network sees it, uint8 (C, H, W)."""
    host = Host.of(request)
    decode = partial(host.decoders.decode, raw, assignment.sees, where)
    pixels = await host.decoding.run(caller_of(request).workspace, decode, until)
    return [torch.from_numpy(view) for view in pixels]


def _stacked(images: Sequence[Sequence[Tensor]], assignment: Assignment) -> Views:
    plain, *others = (torch.stack(column) for column in zip(*images, strict=True))
    return Views(plain, dict(zip(assignment.sees[1:], others, strict=True)))


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


def _json(answer: Prediction | Predictions) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


def _prediction(choice: Choice, found: Tensor, top: int | None) -> Prediction:
    (classes,) = _scores(choice, found[None], top)
    return Prediction(**_answering(choice), classes=classes)


def _predictions(
    choice: Choice, names: Sequence[str], decoded: Sequence[list[Tensor] | str], found: Tensor, top: int | None
) -> Predictions:
    scores = iter(_scores(choice, found, top))
    images = [
        ImagePrediction(name=name, classes=[], problem=views)
        if isinstance(views, str)
        else ImagePrediction(name=name, classes=next(scores))
        for name, views in zip(names, decoded, strict=True)
    ]
    return Predictions(**_answering(choice), images=images)


def _scores(choice: Choice, found: Tensor, top: int | None) -> list[list[ClassScore]]:
    """The most probable classes of each image, from logits (N, C)."""
    if not len(found):
        return []
    order = found.argsort(dim=1, descending=True, stable=True)[:, :top]
    columns = order, found.softmax(1).gather(1, order), found.gather(1, order)
    return [
        [ClassScore(name=choice.classes[i], probability=p, logit=z) for i, p, z in zip(*row, strict=True)]
        for row in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _answering(choice: Choice) -> dict[str, Any]:
    snapshot = choice.snapshot
    return {
        "deployment": parted(snapshot.deployment)[1],
        "generation": snapshot.generation,
        "target": snapshot.version,
        "target_fingerprint": snapshot.fingerprint,
        "module_set": choice.module_set,
        "modules": [ServedModule(id=m.id, digest=m.digest) for m in choice.modules],
    }
