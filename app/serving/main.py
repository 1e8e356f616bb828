"""The serving process's own ASGI app: `uvicorn --factory app.serving.main:create_serving_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import torch
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from app.api.guard import Guard
from app.api.problems import install, respond
from app.api.wire.deployments import Prediction, ServedModule
from app.serving.registry import Registry
from app.serving.snapshot import Snapshot
from app.zoo.images import decode_image
from app.zoo.settings import Settings
from app.zoo.zoo import open_zoo
from pnc_core.errors import DataError


def create_serving_app(settings: Settings | None = None) -> FastAPI:
    """Build the serving app around an open zoo; it follows the wanted state from its start on.

    Args:
        settings: Instead of those in the environment.
    """
    settings = settings or Settings()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    app = FastAPI(lifespan=_lifespan, redirect_slashes=False, openapi_url=None)
    app.state.zoo = open_zoo(settings)
    app.state.registry = Registry(app.state.zoo)
    app.post("/v1/deployments/{deployment}/predict")(predict)
    app.post("/internal/sync/{deployment}")(sync)
    app.get("/healthz")(healthz)
    app.get("/readyz")(readyz)
    install(app)
    app.add_middleware(Guard, settings=settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.registry.start()
    yield
    await run_in_threadpool(app.state.registry.close)
    app.state.zoo.close()


async def predict(deployment: str, request: Request) -> Response:
    """Classify one image; the answer names the revision and the modules that gave it."""
    snapshot: Snapshot = request.app.state.registry.get(deployment)
    raw = await request.body()
    try:
        answer = await run_in_threadpool(_predict, snapshot, raw)
    except DataError as error:
        return respond(request.scope, 422, error.code, str(error))
    return Response(answer.model_dump_json(), media_type="application/json")


def _predict(snapshot: Snapshot, raw: bytes) -> Prediction:
    image = torch.from_numpy(decode_image(raw, snapshot.spec.input_size, "body"))
    return Prediction(
        deployment=snapshot.deployment,
        generation=snapshot.generation,
        target=snapshot.version,
        target_fingerprint=snapshot.fingerprint,
        modules=[ServedModule(id=m.id, digest=m.digest) for m in snapshot.modules],
        classes=snapshot.answer(image),
    )


async def sync(deployment: str, generation: int, request: Request) -> Any:
    """Bring a deployment to the wanted state now; a refusal of `generation` says why it stays as it was."""
    registry: Registry = request.app.state.registry
    await run_in_threadpool(registry.sync, deployment)
    refusal = registry.refusal(deployment, generation)
    if refusal is not None:
        return respond(request.scope, 409, refusal.code, refusal.detail)
    return {"deployment": deployment}


def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


def readyz(request: Request) -> Response:
    """Everything wanted is served or refused."""
    if request.app.state.registry.settled():
        return Response('{"status": "ready"}', media_type="application/json")
    detail = "expected every deployment at its wanted generation, got some that are still loading; ask again"
    return respond(request.scope, 503, "not_ready", detail, headers={"Retry-After": "1"})
