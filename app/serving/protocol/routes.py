"""Routes of the Open Inference Protocol v2, compatible with the clients of Triton and KServe.

A deployment is a model of the protocol, and each generation is a version. `deployment+module` is the
target with this module alone. Loading it attaches the module, and unloading it detaches the module.
The body of an error is `{"error": "..."}`. Every success has status 200.
"""

import logging
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from functools import partial
from importlib.metadata import version as installed
from typing import Any

import orjson
import torch
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from app.api.leaving import GONE, Gone
from app.deployments import service as deployments
from app.errors import Loading, NoSpace, NotFound, StoreUnavailable, ZooError
from app.serving.answering import Host, body_of, chosen_ids, deadline, held, length_of, logits
from app.serving.auth import caller_of, qualified_name
from app.serving.canary.assigning import Assignment, assigned
from app.serving.engine.capacity import Overloaded, TooLate
from app.serving.engine.engine import NotFinite, Stopped
from app.serving.health import unreadiness
from app.serving.loader.snapshot import Choice, Snapshot
from app.serving.protocol.answers import PIECE, Pieces, written
from app.serving.protocol.bodies import is_short
from app.serving.protocol.tensors import INPUTS, PIXELS, BadRequest, Form, Inference, TooManyImages, parse

log = logging.getLogger(__name__)
OUTPUTS = ("logits", "probabilities")
EXTENSIONS = ["binary_tensor_data", "classification", "model_repository", "model_configuration", "statistics"]
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]
_LATER = {"Retry-After": "1"}


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, media_type="application/json")


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return _json({"error": text}, status, headers)


_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (BadRequest, 400),
    (TooManyImages, 413),
    (NotFinite, 422),
    (Stopped, 503),
    (Loading, 503),
    (NoSpace, 507),
    (StoreUnavailable, 503),
    (NotFound, 404),
    (ZooError, 400),
)
"""The first matching class decides."""


def answer_error(error: Exception) -> Response:
    """Answer an error in the protocol's format."""
    if isinstance(error, Gone | ClientDisconnect):
        return Response(status_code=GONE)
    if isinstance(error, HTTPException):
        return _error(error.status_code, str(error.detail), dict(error.headers or {}))
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
    if status is not None:
        return _error(status, str(error), _LATER if status == 503 else None)
    if isinstance(error, Overloaded):
        return _error(503, "expected room in the queue, got a full one; try again in a moment", _LATER)
    if isinstance(error, TooLate):
        return _error(504, "expected an answer in time, got none; try again")
    log.error("inference failed", exc_info=error)
    return _error(500, "expected to handle this, got an internal error; see the log of serving")


async def server(_: Request) -> Response:
    """Server metadata."""
    return _json({"name": "pnc-zoo", "version": installed("pnc-zoo"), "extensions": EXTENSIONS})


async def live(_: Request) -> Response:
    """The process is alive."""
    return _json({"live": True})


async def ready(request: Request) -> Response:
    """Every wanted deployment is served, refused or postponed, and the inference thread runs."""
    fine = await unreadiness(Host.of(request)) is None
    return _json({"ready": fine, "live": True}, 200 if fine else 503)


async def statistics(request: Request) -> Response:
    """Number of answered requests. `/metrics` has all other statistics."""
    named = request.path_params.get("name")
    rows = _served(request) if named is None else [(named, _choice(request, named).snapshot)]
    found = [
        {
            "name": one,
            "version": str(s.generation),
            "inference_count": s.use.answered,
            "execution_count": s.use.answered,
        }
        for one, s in rows
    ]
    return _json({"model_stats": found})


async def model_ready(request: Request) -> Response:
    """Whether a deployment is served."""
    choice = _choice(request)
    return _json({"name": _name(request), "ready": True, "version": str(choice.snapshot.generation)})


async def model(request: Request) -> Response:
    """Model metadata."""
    choice = _choice(request)
    size, classes = choice.snapshot.spec.input_size, len(choice.classes)
    return _json(
        {
            "name": _name(request),
            "versions": [str(choice.snapshot.generation)],
            "platform": "pytorch_pnc",
            "inputs": [{"name": PIXELS, "datatype": INPUTS[PIXELS], "shape": [-1, *size]}],
            "outputs": [{"name": output, "datatype": "FP32", "shape": [-1, classes]} for output in OUTPUTS],
            "parameters": choice.provenance,
        }
    )


async def config(request: Request) -> Response:
    """Model configuration in Triton's format."""
    choice, limits = _choice(request), Host.of(request).engine.limits
    size, classes = choice.snapshot.spec.input_size, len(choice.classes)
    return _json(
        {
            "name": _name(request),
            "platform": "pytorch_pnc",
            "backend": "pytorch",
            "max_batch_size": limits.batch,
            "input": [{"name": PIXELS, "data_type": f"TYPE_{INPUTS[PIXELS]}", "dims": list(size)}],
            "output": [{"name": output, "data_type": "TYPE_FP32", "dims": [classes]} for output in OUTPUTS],
            "dynamic_batching": {"max_queue_delay_microseconds": int(limits.wait * 1e6)},
            "parameters": {key: {"string_value": value} for key, value in choice.provenance.items()},
        }
    )


async def infer(request: Request) -> Response:
    """Inference with JSON or binary tensors."""
    choice, workspace = _choice(request), caller_of(request).workspace
    host = Host.of(request)
    form = Form(choice.snapshot.spec.input_size, OUTPUTS, host.settings.request_images)
    _check_length(request, form)
    with ExitStack() as stack:
        stack.enter_context(held(request))
        body = await body_of(request)
        until = deadline(request)
        asked = await _read(request, body, form, until)
        assignment = _assigned(request, choice, asked)
        choice = assignment.choice
        found = await logits(request, assignment, torch.from_numpy(asked.array), until)
        head: dict[str, Any] = {
            "model_name": _name(request),
            "model_version": str(choice.snapshot.generation),
            "parameters": choice.provenance_json,
        }
        if asked.id is not None:
            head["id"] = asked.id
        accepted = request.headers.get("accept-encoding", "")
        write = partial(written, head, asked.outputs, found, choice.classes, accepted)
        short = found.numel() * len(asked.outputs) <= PIECE
        content, headers = write() if short else await host.writing.run(workspace, write, until)
        return Pieces(content, headers, stack.pop_all())


def _check_length(request: Request, form: Form) -> None:
    """Check the number of images of a body without JSON by its length, before it is read."""
    headers, length = request.headers, length_of(request)
    plain = headers.get("content-encoding", "").strip().lower() in ("", "identity")
    if plain and length is not None and headers.get("inference-header-content-length") == "0":
        form.check_count(length // form.numbers)


async def _read(request: Request, body: bytearray, form: Form, until: float) -> Inference:
    """Read a short body on the event loop, and any other body on a thread."""
    host, headers = Host.of(request), request.headers
    encoding = headers.get("content-encoding", "").strip().lower()
    header_length = headers.get("inference-header-content-length")
    if is_short(body, encoding, header_length):
        return parse(body, header_length, form)
    most = host.settings.max_image_bytes
    read = partial(host.readers.read, body, encoding, header_length, form, most)
    return await host.reading.run(caller_of(request).workspace, read, until)


async def index(request: Request) -> Response:
    """List of all served deployments and attached modules."""
    rows = []
    for name, snapshot in _served(request):
        models = (name, *(f"{name}+{module.id}" for module in snapshot.modules))
        rows += [{"name": one, "version": str(snapshot.generation), "state": "READY", "reason": ""} for one in models]
    return _json(rows)


def _served(request: Request) -> list[tuple[str, Snapshot]]:
    """Served deployments of the caller's workspace by name, without those that end in the meantime."""
    registry, found = Host.of(request).registry, []
    for name in registry.names(caller_of(request).workspace):
        with suppress(NotFound):
            found.append((name, registry.get(qualified_name(request, name))))
    return found


async def load(request: Request) -> Response:
    """Attach a module (`deployment+module`). With a deployment's name, check that it is served."""
    return await _changed(request, deployments.attach)


async def unload(request: Request) -> Response:
    """Detach a module (`deployment+module`)."""
    return await _changed(request, deployments.detach)


async def _changed(request: Request, work: Callable[..., deployments.Change]) -> Response:
    change = partial(_change, request, _name(request), work)
    return await Host.of(request).changing.run(caller_of(request).workspace, change, deadline(request))


def _change(request: Request, name: str, work: Callable[..., deployments.Change]) -> Response:
    registry = Host.of(request).registry
    deployment, plus, module = name.partition("+")
    if not plus:
        registry.get(qualified_name(request, deployment))
        if work is deployments.detach:
            return _error(400, f"expected deployment+module to detach, got {name!r:.80}; end a deployment with DELETE")
        return _json({})
    with registry.zoo.seen_by(caller_of(request)).database.write() as session:
        generation = work(session, deployment, module).deployment.generation
    registry.sync(qualified_name(request, deployment))
    registry.check_loaded(qualified_name(request, deployment), generation)
    refusal = registry.refusal(qualified_name(request, deployment), generation)
    return _json({}) if refusal is None else _error(400, refusal.detail)


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    return name


def _choice(request: Request, name: str | None = None) -> Choice:
    """Snapshot and modules for a model's name and version.

    Raises:
        NotFound: the deployment, the generation or the module does not exist.
    """
    deployment, plus, module = (name or _name(request)).partition("+")
    version: str | None = request.path_params.get("version")
    if version is not None and not (version.isascii() and version.isdigit() and len(version) < 10):
        raise NotFound(f"{deployment}: expected a generation's number as version, got {version!r:.40}")
    snapshot = Host.of(request).registry.get(
        qualified_name(request, deployment), None if version is None else int(version)
    )
    return snapshot.chosen((module,) if plus else None)


def _assigned(request: Request, choice: Choice, asked: Inference) -> Assignment:
    """The modules that answer, by the model's name and version and by the request's parameters."""
    modules, module_set = (_text(asked, name) for name in ("modules", "module_set"))
    if modules is None and module_set is None and "+" in _name(request):
        return Assignment(choice)
    return assigned(choice.snapshot, chosen_ids(modules), module_set, is_drawn="version" not in request.path_params)


def _text(asked: Inference, name: str) -> str | None:
    """A parameter of a request; None: it is absent.

    Raises:
        BadRequest: the parameter is not a string.
    """
    found = asked.parameters.get(name)
    if found is not None and not isinstance(found, str):
        meant = "ids separated by commas" if name == "modules" else "main or canary"
        raise BadRequest(f"parameters.{name}: expected {meant}, got {found!r:.80}")
    return found


def _answered(endpoint: Endpoint) -> Endpoint:
    """Wrap an endpoint so that its errors are answered in the protocol's format."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Exception as error:
            return answer_error(error)

    return answer


def _routes(path: str, endpoint: Endpoint, method: str = "GET", *, versioned: bool = False) -> list[Route]:
    """Routes of an endpoint: one path, or two if `versioned`. `{v}` marks the place of the version in the path."""
    paths = [path.replace("{v}", "")] + [path.replace("{v}", "/versions/{version}")] * versioned
    return [Route(f"/v2{path}", _answered(endpoint), methods=[method]) for path in paths]


# Starlette tries routes in order, so that the most frequent one comes first. FastAPI's routes would validate too much.
routes = [
    *_routes("/models/{name}{v}/infer", infer, "POST", versioned=True),
    *_routes("", server),
    *_routes("/health/live", live),
    *_routes("/health/ready", ready),
    *_routes("/models/stats", statistics),
    *_routes("/models/{name}{v}/stats", statistics, versioned=True),
    *_routes("/models/{name}{v}/ready", model_ready, versioned=True),
    *_routes("/models/{name}{v}/config", config, versioned=True),
    *_routes("/models/{name}{v}", model, versioned=True),
    *_routes("/repository/index", index, "POST"),
    *_routes("/repository/models/{name}/load", load, "POST"),
    *_routes("/repository/models/{name}/unload", unload, "POST"),
]
