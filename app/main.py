"""The application of the HTTP API: `pnc api`, or `uvicorn --factory app.main:create_app`."""

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from pydantic.json_schema import models_json_schema

from app.access import routes as keys
from app.access.auth import Admission
from app.api import health, metrics
from app.api.documented import documented
from app.api.guard import Guard
from app.api.middleware import HeadRequests, SecurityHeaders
from app.api.openapi import pages as document_pages
from app.api.openapi.examples import add_examples
from app.api.problems import install
from app.api.scopes import DOCUMENT, PUBLIC, check_routes, scopes
from app.compositions import routes as compositions
from app.datasets import routes as datasets
from app.deployments import inference
from app.deployments import routes as deployments
from app.deployments.canary import routes as canary_routes
from app.deployments.gateway import Gateway
from app.imports import routes as imports
from app.jobs import routes as jobs
from app.jobs.asking import routes as sources
from app.jobs.streams import routes as streams
from app.lifecycle import routes as purges
from app.models import routes as models
from app.modules import routes as modules
from app.modules import signature_routes
from app.process import tracing
from app.settings import Settings
from app.store import routes as uploads
from app.webhooks import routes as webhooks
from app.zoo import open_zoo
from pnc_client.schemas.problems import ProblemDocument

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

DESCRIPTION = """Clone classes of one trained network into another, and plug them in and out of a live model.

1. Announce, send and complete an upload. Add it to a model as a version. A worker checks the version.
2. Register a dataset: Parquet in the Hugging Face image layout.
3. Submit a cloning job and follow its events. Its states: `validating` (a version is being checked), `queued`,
   `running`, `pausing`, `paused`, `cancelling`, and finally `succeeded`, `failed` or `cancelled`.
4. Attach the module to a deployment, predict, detach it again.

Every error is a problem document (RFC 9457). Lists are pages; `after` takes `next_cursor` of the previous page.
A repeated POST with the same `Idempotency-Key` is executed only once within 24 hours."""
TAGS = [
    {"name": "uploads", "description": "Files that are sent to the service."},
    {"name": "models", "description": "Registered networks and their immutable versions."},
    {"name": "datasets", "description": "Images for cloning jobs."},
    {"name": "cloning jobs", "description": "Clone classes of a source network into a target network."},
    {"name": "modules", "description": "Cloned modules and their bundles."},
    {"name": "compositions", "description": "Numbers that a set of modules needs together on one target."},
    {"name": "purges", "description": "Remove archived things and their bytes for good."},
    {"name": "deployments", "description": "Served targets with attached modules."},
    {"name": "webhooks", "description": "URLs that receive messages about jobs and deployments."},
    {"name": "access", "description": "Keys, their workspace, and the audit log."},
    {"name": "health", "description": "State of the process, for monitoring."},
]
UNTRACED = ("/healthz", "/readyz", "/metrics", "/_nicegui")
"""Beginnings of paths that programs request all the time; they get no spans."""
_ROUTERS = (
    imports,
    models,
    uploads,
    datasets,
    jobs,
    sources,
    streams,
    modules,
    compositions,
    purges,
    deployments,
    canary_routes,
    keys,
    signature_routes,
    inference,
    webhooks,
    health,
    metrics,
    document_pages,
)


def create_app(
    settings: Settings | None = None, *, serving_transport: httpx.AsyncBaseTransport | None = None
) -> FastAPI:
    """Open the zoo and build the API. The schema must be at the newest revision.

    Args:
        settings: Settings; None: those of the environment.
        serving_transport: Transport to the serving process, for tests; None: the network.
    """
    settings = settings or Settings()
    app = FastAPI(
        title="Model-zoo cloning service",
        summary="Partial Network Cloning over HTTP",
        description=DESCRIPTION,
        version=_version(),
        openapi_tags=TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=_lifespan,
        responses=documented(400, 401, 403, 422, 429, 503),
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
        openapi_url=DOCUMENT,
        docs_url=None,
        redoc_url=None,
        telemetry=_telemetry(tracing.begin("api")),
    )
    app.state.zoo = open_zoo(settings)
    app.state.admission = Admission(settings, app.state.zoo)
    app.state.gateway = Gateway(settings, serving_transport)
    app.state.watch = streams.open_watch(app.state.zoo, settings)
    app.state.readiness = health.open_readiness(app.state.zoo)
    app.state.pages = None
    for module in _ROUTERS:
        app.include_router(module.router)
    if settings.pages:
        _add_pages(app)
    check_routes(app, app.state.pages)
    app.add_middleware(HeadRequests)
    install(app)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(SecurityHeaders)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _telemetry(provider: "TracerProvider | None") -> TelemetryConfig:
    """FastAPI's telemetry: one span for each request if this process is traced, and nothing else."""
    return {
        "tracing": provider is not None,
        "tracer_provider": provider,
        "exclude": _is_untraced,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
    }


def _is_untraced(scope: MutableMapping[str, Any]) -> bool:
    path: str = scope["path"]
    return scope["type"] == "websocket" or path.startswith(UNTRACED)


def _add_pages(app: FastAPI) -> None:
    """Add the web pages after all routes of the API."""
    from app.web.mount import Pages
    from app.web.page_context import PageContext

    app.state.pages = Pages(PageContext(app.state.zoo, app.state.gateway), app.state.admission)
    app.router.routes.append(app.state.pages)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    await run_in_threadpool(app.openapi)  # takes most of a second, and is needed to answer 405
    async with app.state.pages.running() if app.state.pages else nullcontext():
        yield
    await run_in_threadpool(app.state.watch.close)
    await app.state.gateway.close()
    app.state.zoo.close()
    await run_in_threadpool(tracing.end)


def _operation_id(route: APIRoute) -> str:
    return route.name


def _version() -> str:
    try:
        return version("pnc-zoo")
    except PackageNotFoundError:  # the package is not installed
        return "0.0.0"


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's OpenAPI document with the schema of problem documents, examples and scopes."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
            license_info=app.license_info,
        )
        _, problem = models_json_schema(
            [(ProblemDocument, "serialization")], ref_template="#/components/schemas/{model}"
        )
        document["components"]["schemas"].update(problem["$defs"])
        add_examples(document["components"]["schemas"])
        _add_security(app, document)
        app.openapi_schema = document
    return app.openapi_schema


def _add_security(app: FastAPI, document: dict[str, Any]) -> None:
    """Add to every operation whether it needs a key, and with which scope."""
    described = "A key, if the service requires keys. The web pages send the key as a cookie."
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": described}}
    needed = scopes(app)
    for item in document["paths"].values():
        for operation in item.values():
            scope = needed[operation["operationId"]]
            operation["security"] = [] if scope == PUBLIC else [{"key": [scope]}]
