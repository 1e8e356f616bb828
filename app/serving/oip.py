"""The Open Inference Protocol v2, as Triton's and KServe's clients speak it.

A deployment is a model, and each of its generations a version. `deployment+module` is the
target with that one module: loading it attaches the module, unloading detaches it.
Every error's body is `{"error": "..."}`; success is exactly 200.
"""

import gzip
import logging
import zlib
from collections.abc import Callable, Coroutine
from importlib.metadata import version as installed
from typing import Any

import numpy as np
import orjson
import torch
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.serving.answering import Choice, Host, chosen_ids
from app.serving.engine import Overloaded, TooLate
from app.serving.tensors import INPUTS, PIXELS, BadRequest, Inference, Wanted, inflate, parse, render
from app.zoo import deployments
from app.zoo.errors import NotFound, ZooError

log = logging.getLogger(__name__)
OUTPUTS = ("logits", "probabilities")
EXTENSIONS = ["binary_tensor_data", "classification", "model_repository", "model_configuration", "statistics"]
COMPRESSED = 1024
"""Shorter answers are sent as they are, whatever the client could read."""


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, media_type="application/json")


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return _json({"error": text}, status, headers)


def answer_error(error: Exception) -> Response:
    """The protocol's answer to what went wrong."""
    if isinstance(error, HTTPException):
        return _error(error.status_code, str(error.detail), dict(error.headers or {}))
    if isinstance(error, BadRequest):
        return _error(400, str(error))
    if isinstance(error, NotFound):
        return _error(404, str(error))
    if isinstance(error, ZooError):
        return _error(400, str(error))
    if isinstance(error, Overloaded):
        return _error(503, "expected room in the queue, got none; try again in a moment", {"Retry-After": "1"})
    if isinstance(error, TooLate):
        return _error(504, "expected an answer in time, got none; try again")
    log.error("inference failed", exc_info=error)
    return _error(500, "expected to handle this, got an error of our own; see serving's log")


class ProtocolRoute(APIRoute):
    """Whatever goes wrong behind it is answered in the protocol's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with our answers to errors."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except Exception as error:
                return answer_error(error)

        return handle


router = APIRouter(prefix="/v2", route_class=ProtocolRoute)


@router.get("")
async def server() -> Response:
    """Server metadata."""
    return _json({"name": "pnc-zoo", "version": installed("pnc-zoo"), "extensions": EXTENSIONS})


@router.get("/health/live")
async def live() -> Response:
    """The process is alive."""
    return _json({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Everything wanted is served or refused."""
    settled = await run_in_threadpool(Host.of(request).registry.settled)
    return _json({"ready": settled, "live": True}, 200 if settled else 503)


@router.get("/models/stats")
@router.get("/models/{name}/stats")
@router.get("/models/{name}/versions/{version}/stats")
async def statistics(request: Request, name: str | None = None, version: str | None = None) -> Response:
    """How many requests are under way; everything else is at /metrics."""
    names = [name] if name is not None else Host.of(request).registry.names()
    rows = [(one, _choice(request, one, version).snapshot) for one in names]
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


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """Is it served?"""
    choice = _choice(request, name, version)
    return _json({"name": name, "ready": True, "version": str(choice.snapshot.generation)})


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model(request: Request, name: str, version: str | None = None) -> Response:
    """Model metadata."""
    choice = _choice(request, name, version)
    size, classes = choice.snapshot.spec.input_size, len(choice.network.classes)
    return _json(
        {
            "name": name,
            "versions": [str(choice.snapshot.generation)],
            "platform": "pytorch_pnc",
            "inputs": [{"name": PIXELS, "datatype": INPUTS[PIXELS], "shape": [-1, *size]}],
            "outputs": [{"name": output, "datatype": "FP32", "shape": [-1, classes]} for output in OUTPUTS],
            "parameters": _provenance(choice),
        }
    )


@router.get("/models/{name}/config")
@router.get("/models/{name}/versions/{version}/config")
async def config(request: Request, name: str, version: str | None = None) -> Response:
    """Model configuration, as Triton writes it."""
    choice, limits = _choice(request, name, version), Host.of(request).engine.limits
    size, classes = choice.snapshot.spec.input_size, len(choice.network.classes)
    return _json(
        {
            "name": name,
            "platform": "pytorch_pnc",
            "backend": "pytorch",
            "max_batch_size": limits.batch,
            "input": [{"name": PIXELS, "data_type": f"TYPE_{INPUTS[PIXELS]}", "dims": list(size)}],
            "output": [{"name": output, "data_type": "TYPE_FP32", "dims": [classes]} for output in OUTPUTS],
            "dynamic_batching": {"max_queue_delay_microseconds": int(limits.wait * 1e6)},
            "parameters": {key: {"string_value": value} for key, value in _provenance(choice).items()},
        }
    )


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str | None = None) -> Response:
    """Inference, JSON or binary tensors either way."""
    host, headers = Host.of(request), request.headers
    choice = _choice(request, name, version)
    most = host.settings.max_image_bytes
    body = inflate(await request.body(), headers.get("content-encoding", "").strip().lower(), most)
    size = choice.snapshot.spec.input_size
    asked = parse(body, headers.get("inference-header-content-length"), size, OUTPUTS)
    choice = _narrowed(choice, asked)
    images = torch.from_numpy(asked.array.copy() if not asked.array.flags.writeable else asked.array)
    logits = await choice.logits(host, images, pixels=asked.input == PIXELS)
    head: dict[str, Any] = {
        "model_name": name,
        "model_version": str(choice.snapshot.generation),
        "parameters": _provenance(choice),
    }
    if asked.id is not None:
        head["id"] = asked.id
    arrays = [(wanted, _output(wanted, logits, choice.network.classes)) for wanted in asked.outputs]
    content, kind = render(head, arrays)
    content, packed = _compressed(content, headers.get("accept-encoding", ""))
    return Response(content, 200, {**kind, **packed})


@router.post("/repository/index")
async def index(request: Request) -> Response:
    """Everything that is served, and every module that is attached, as a bare list."""
    registry, rows = Host.of(request).registry, []
    for name in registry.names():
        snapshot = registry.get(name)
        models = (name, *(f"{name}+{module.id}" for module in snapshot.modules))
        rows += [{"name": one, "version": str(snapshot.generation), "state": "READY", "reason": ""} for one in models]
    return _json(rows)


@router.post("/repository/models/{name}/load")
async def load(request: Request, name: str) -> Response:
    """Attach a module (`deployment+module`); a deployment's own name asks whether it is served."""
    return await run_in_threadpool(_change, Host.of(request), name, deployments.attach)


@router.post("/repository/models/{name}/unload")
async def unload(request: Request, name: str) -> Response:
    """Detach a module (`deployment+module`)."""
    return await run_in_threadpool(_change, Host.of(request), name, deployments.detach)


def _change(host: Host, name: str, work: Callable[..., deployments.Change]) -> Response:
    deployment, plus, module = name.partition("+")
    if not plus:
        host.registry.get(deployment)
        if work is deployments.detach:
            return _error(
                400, f"expected deployment+module to detach, got {name!r:.80}; a deployment is ended with DELETE"
            )
        return _json({})
    with host.registry.zoo.database.write() as session:
        generation = work(session, deployment, module).deployment.generation
    host.registry.sync(deployment)
    refusal = host.registry.refusal(deployment, generation)
    return _json({}) if refusal is None else _error(400, refusal.detail)


def _choice(request: Request, name: str, version: str | None) -> Choice:
    """What a model's name and version mean.

    Raises:
        NotFound: there is no such deployment, generation or module; the target never answers in its place.
    """
    deployment, plus, module = name.partition("+")
    if version is not None and not (version.isascii() and version.isdigit() and len(version) < 10):
        raise NotFound(f"{deployment}: expected a generation's number as version, got {version!r:.40}")
    snapshot = Host.of(request).registry.get(deployment, None if version is None else int(version))
    return Choice.make(snapshot, (module,) if plus else None)


def _narrowed(choice: Choice, asked: Inference) -> Choice:
    """`parameters.modules` chooses among the modules for this request alone."""
    named = asked.parameters.get("modules")
    if named is None:
        return choice
    if not isinstance(named, str):
        raise BadRequest(f"parameters.modules: expected ids separated by commas, got {named!r:.80}")
    return Choice.make(choice.snapshot, chosen_ids(named))


def _provenance(choice: Choice) -> dict[str, str]:
    """What answered, as parameters, which are strings."""
    return {
        "generation": str(choice.snapshot.generation),
        "target": choice.snapshot.version,
        "target_fingerprint": choice.snapshot.fingerprint,
        "modules": ",".join(module.id for module in choice.modules),
        "module_digests": ",".join(module.digest for module in choice.modules),
        "classes": orjson.dumps(choice.network.classes).decode(),
    }


def _output(wanted: Wanted, logits: torch.Tensor, classes: tuple[str, ...]) -> NDArray[Any]:
    numbers = (logits if wanted.name == "logits" else logits.softmax(1)).numpy()
    if not wanted.classification:
        return numbers
    best = np.argsort(-numbers, axis=1, kind="stable")[:, : wanted.classification]
    texts = [
        [f"{row[i]:f}:{i}:{classes[i]}".encode() for i in places] for row, places in zip(numbers, best, strict=True)
    ]
    return np.array(texts, dtype=object)


def _compressed(content: bytes, accepted: str) -> tuple[bytes, dict[str, str]]:
    kinds = {part.split(";")[0].strip() for part in accepted.lower().split(",")}
    if len(content) >= COMPRESSED and "gzip" in kinds:
        return gzip.compress(content, 1), {"Content-Encoding": "gzip"}
    if len(content) >= COMPRESSED and "deflate" in kinds:
        return zlib.compress(content, 1), {"Content-Encoding": "deflate"}
    return content, {}
