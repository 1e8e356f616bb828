"""The application of the serving process: `uvicorn --factory app.serving.main:create_serving_app`."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import torch
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from app.api.guard import Guard
from app.api.middleware import HeadRequests, SecurityHeaders
from app.api.problems import install, respond
from app.db.isolation import parted
from app.errors import Misconfigured
from app.process.pulse import STOPPED
from app.serving import images
from app.serving.answering import Host, deadline, workspace_share
from app.serving.auth import Auth, check_routes
from app.serving.engine.capacity import TooLate
from app.serving.engine.engine import Engine, Limits
from app.serving.engine.exporter import Exporter
from app.serving.engine.modes import Mode
from app.serving.engine.program_files import ProgramFiles
from app.serving.engine.sessions import is_installed
from app.serving.health import unreadiness
from app.serving.loader.registry import Registry
from app.serving.protocol import routes as oip
from app.settings import Settings
from app.zoo import open_zoo
from pnc_core.devices import device_of
from pnc_core.errors import ConfigError

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.05
"""Interval at which a change looks whether the engine of a new target is chosen."""
SWITCH_SECONDS = 50e-6
"""Longest time for which a thread keeps Python's global lock while another thread waits. With Python's default of
5 ms, the time of a small network, the device would idle between two batches while requests are read."""


def create_serving_app(settings: Settings | None = None) -> FastAPI:
    """Open the zoo and build the serving application. After its start it follows the wanted state.

    Args:
        settings: Settings; None: those of the environment.
    """
    settings = settings or Settings()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    app = FastAPI(lifespan=_lifespan, redirect_slashes=False, openapi_url=None)
    engine = Engine(limits(settings))
    app.state.host = Host.make(settings, Registry(open_zoo(settings), engine, _mode(settings)), engine)
    app.router.routes.extend(oip.routes)
    app.include_router(images.router)
    app.post("/internal/sync/{deployment:path}")(sync)
    app.get("/internal/history/{deployment:path}")(history)
    app.get("/healthz")(healthz)
    app.get("/readyz")(readyz)
    app.get("/metrics")(prometheus)
    check_routes(app)
    app.add_middleware(Auth, settings=settings, zoo=app.state.host.registry.zoo)
    app.add_middleware(HeadRequests)
    install(app)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(SecurityHeaders)
    return app


def limits(settings: Settings) -> Limits:
    """Limits of the engine, by the settings."""
    most = settings.batch_images
    sizes: tuple[int, ...] = ()
    if settings.deterministic:
        sizes = (most,)
    elif settings.serving_compile:  # which compiles a program for every batch size
        sizes = (*(2**power for power in range((most - 1).bit_length())), most)
    return Limits(
        batch=most,
        wait=settings.batch_wait_ms / 1000,
        waiting=settings.waiting_requests,
        images=settings.waiting_images,
        share=workspace_share(settings),
        stuck=settings.stuck_seconds,
        sizes=sizes,
    )


def _mode(settings: Settings) -> Mode:
    precision = {"float32": torch.float32, "bf16": torch.bfloat16}[settings.serving_precision]
    try:
        device = device_of(settings.device)
    except ConfigError as error:
        raise Misconfigured(f"PNC_DEVICE: {error}") from None
    return Mode(
        settings.deterministic,
        precision,
        settings.serving_compile,
        device,
        settings.batch_images,
        settings.threads,
        _exporter(settings, device),
    )


def _exporter(settings: Settings, device: str) -> Exporter | None:
    """The exporter of programs for ONNX Runtime; None: torch runs all networks."""
    fits = device == "cpu" and settings.serving_precision == "float32"
    if settings.serving_engine == "torch" or settings.deterministic or settings.serving_compile or not fits:
        return None
    if not is_installed():
        log.warning("torch runs all networks, because ONNX Runtime is missing; pip install 'pnc-zoo[server]'")
        return None
    return Exporter(ProgramFiles(settings.data_dir / "programs", settings.program_cache_bytes))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    host: Host = app.state.host
    sys.setswitchinterval(SWITCH_SECONDS)
    host.engine.start()
    host.decoders.start()
    host.registry.start()
    host.comparisons.start()
    yield
    await run_in_threadpool(host.comparisons.close)
    await run_in_threadpool(host.registry.close)
    host.registry.mode.close()
    await run_in_threadpool(host.engine.close)
    host.decoders.close()
    host.readers.close()
    host.registry.zoo.close()


async def sync(deployment: str, generation: int, request: Request) -> Any:
    """Bring a deployment to the wanted state now. If `generation` is refused, answer 409 with the reason."""
    host, registry = Host.of(request), Host.of(request).registry
    try:
        work = partial(registry.sync, deployment)
        until = deadline(request)
        await host.changing.run(parted(deployment)[0], work, until)
        while registry.is_preparing(deployment):
            if asyncio.get_running_loop().time() > until:
                raise TooLate
            await asyncio.sleep(LOOK_SECONDS)
    except TooLate:
        detail = "expected to apply this change in time, got other changes that take long; it is applied later"
        return respond(request.scope, 504, "too_late", detail)
    registry.check_loaded(deployment, generation)
    refusal = registry.refusal(deployment, generation)
    if refusal is not None:
        return respond(request.scope, 409, refusal.code, refusal.detail)
    return {"deployment": deployment}


async def history(deployment: str, request: Request) -> Any:
    """Requests and latencies of a deployment over the last hour."""
    return Host.of(request).history.read(deployment)


async def healthz(request: Request) -> Response:
    """The process is alive, and needs no restart."""
    reason = Host.of(request).engine.trouble()
    if reason is None:
        return Response('{"status": "ok"}', media_type="application/json")
    return respond(request.scope, 503, STOPPED, reason)


async def readyz(request: Request) -> Response:
    """Every wanted deployment is served, refused or postponed, and the inference thread runs."""
    trouble = await unreadiness(Host.of(request))
    if trouble is None:
        return Response('{"status": "ready"}', media_type="application/json")
    return respond(request.scope, 503, trouble.code, trouble.detail, headers={"Retry-After": "1"})


def prometheus() -> Response:
    """Prometheus metrics."""
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
