"""The composition root of the HTTP front end: `pnc api`, or `uvicorn --factory app.main:create_app`."""

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
from app.api.scopes import PUBLIC, check_routes, scopes
from app.datasets import routes as datasets
from app.deployments import inference
from app.deployments import routes as deployments
from app.deployments.gateway import Gateway
from app.jobs import routes as jobs
from app.jobs import streams
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

1. Announce, send and complete an upload; add it to a model as a version; a worker checks it.
2. Register a dataset: Parquet in the Hugging Face image layout.
3. Submit a cloning job and follow its events. Its states: `validating` (a version is being checked), `queued`,
   `running`, `pausing`, `paused`, `cancelling`, and at the end `succeeded`, `failed` or `cancelled`.
4. Attach the module to a deployment, predict, detach it again.

Every error is a problem document (RFC 9457). Lists are pages; `after` takes `next_cursor` of the page before.
A POST with an `Idempotency-Key` can be repeated for 24 hours without being done twice."""
TAGS = [
    {"name": "uploads", "description": "Files on their way in."},
    {"name": "models", "description": "Registered networks and their immutable versions."},
    {"name": "datasets", "description": "Images that jobs work with."},
    {"name": "cloning jobs", "description": "Give a target some classes of a source."},
    {"name": "modules", "description": "What was cloned, and its bundles."},
    {"name": "purges", "description": "What was archived goes for good, and its bytes with it."},
    {"name": "deployments", "description": "Targets served under a name, with modules attached."},
    {"name": "webhooks", "description": "Addresses that are told of changes of jobs and deployments."},
    {"name": "access", "description": "Keys, the workspace that they belong to, and what was done with them."},
    {"name": "health", "description": "For whoever watches the process."},
]
UNTRACED = ("/healthz", "/readyz", "/metrics", "/_nicegui")
"""Beginnings of paths that are asked for all the time, by programs."""
_ROUTERS = (
    models,
    uploads,
    datasets,
    jobs,
    streams,
    modules,
    purges,
    deployments,
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
    """Build the API around an open zoo; the schema must have been migrated.

    Args:
        settings: Instead of those in the environment.
        serving_transport: In place of the network to the serving process, for tests.
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
        openapi_url=document_pages.DOCUMENT,
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
    """A span for each request, if this process is traced, and nothing else of what FastAPI could send."""
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
    """The web pages, behind all routes of the API."""
    from app.web.mount import Pages
    from app.web.page_context import PageContext

    app.state.pages = Pages(PageContext(app.state.zoo, app.state.gateway), app.state.admission)
    app.router.routes.append(app.state.pages)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    await run_in_threadpool(app.openapi)  # takes most of a second, and is asked for by any request of a wrong method
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
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0.0.0"


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's own document, and the problem document that routes refer to by name."""
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
    """Which operations need a key, and which scope."""
    described = "A key, where the service asks for one; the browser's pages send it as a cookie."
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": described}}
    needed = scopes(app)
    for item in document["paths"].values():
        for operation in item.values():
            scope = needed[operation["operationId"]]
            operation["security"] = [] if scope == PUBLIC else [{"key": [scope]}]
