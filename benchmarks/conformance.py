"""Check a server against the Open Inference Protocol with Triton's own client.

    python -m benchmarks.conformance http://127.0.0.1:8001 digits mod_...

The deployment must be served without the module; the command leaves it without the module.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import numpy as np
import tritonclient.http as triton
import typer
from numpy.typing import NDArray
from rich.console import Console
from tritonclient.utils import InferenceServerException

TRIES = 5
"""Requests of which one must have the bits of the first answer, since a busy server may cut a request in two."""


@dataclass
class Server:
    """The checked server, and its logits and metadata before the checks."""

    url: str
    deployment: str
    module: str
    images: NDArray[Any] = field(init=False)
    before: NDArray[Any] = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self.client = triton.InferenceServerClient(self.url.removeprefix("http://"))
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        shape = self.metadata()["inputs"][0]["shape"][1:]
        self.images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
        self.before = self.logits()
        self.digest = self.metadata()["parameters"]["target_fingerprint"]

    @property
    def composed(self) -> str:
        """Name of the deployment with the module as a model of the protocol."""
        return f"{self.deployment}+{self.module}"

    def metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get_model_metadata(self.deployment)
        return found

    def input(self, *, binary: bool = True) -> Any:
        tensor = triton.InferInput("images", list(self.images.shape), "UINT8")
        tensor.set_data_from_numpy(self.images, binary_data=binary)
        return tensor

    def infer(self, name: str | None = None, *, sent: bool = True, asked: bool = True, **more: Any) -> Any:
        outputs = [triton.InferRequestedOutput("logits", binary_data=asked)]
        return self.client.infer(name or self.deployment, [self.input(binary=sent)], outputs=outputs, **more)

    def logits(self, name: str | None = None, **more: Any) -> NDArray[Any]:
        found: NDArray[Any] = self.infer(name, **more).as_numpy("logits")
        return found

    def repeats(self, found: NDArray[Any]) -> bool:
        """Whether logits are those of the first answer, see `_near`."""
        return _near(found, self.before)

    def refuses(self, status: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
        """Whether a call fails with this status and a message."""
        try:
            call(*arguments, **named)
        except InferenceServerException as error:
            return bool(error.status() == status and error.message())
        return False

    def refuses_body(self, content: bytes, headers: dict[str, str] | None = None) -> bool:
        """Whether a body is refused with 400 and an error in the protocol's format."""
        answer = self.http.post(f"/v2/models/{self.deployment}/infer", content=content, headers=headers or {})
        return answer.status_code == 400 and list(answer.json()) == ["error"]


def _near(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Whether logits are equal up to rounding: a busy server may compute the images of a request in two batches."""
    return found.shape == wanted.shape and bool(np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max())


def _document(**changes: Any) -> Callable[[Server], bytes]:
    def make(server: Server) -> bytes:
        shape = list(server.images.shape)
        tensor = {"name": "images", "datatype": "UINT8", "shape": shape, "data": server.images.flatten().tolist()}
        return json.dumps({"inputs": [tensor | changes]}).encode()

    return make


def _refused(**changes: Any) -> Callable[[Server], bool]:
    return lambda server: server.refuses_body(_document(**changes)(server))


def _equal(sent: bool, asked: bool) -> Callable[[Server], bool]:
    return lambda server: server.repeats(server.logits(sent=sent, asked=asked))


def _packed(kind: str) -> Callable[[Server], bool]:
    def check(server: Server) -> bool:
        found = server.logits(request_compression_algorithm=kind, response_compression_algorithm=kind)
        return server.repeats(found)

    return check


def _loads(server: Server) -> bool:
    server.client.load_model(server.composed)
    return bool(server.logits().shape[1] > server.before.shape[1])


def _unloads(server: Server) -> bool:
    server.client.unload_model(server.composed)
    return server.composed not in _index(server)


def _index(server: Server) -> set[str]:
    return {row["name"] for row in server.client.get_model_repository_index()}


def _best(server: Server) -> bool:
    outputs = [triton.InferRequestedOutput("probabilities", class_count=1)]
    found = server.client.infer(server.deployment, [server.input()], outputs=outputs).as_numpy("probabilities")
    return bool([int(row[0].decode().split(":")[1]) for row in found] == server.before.argmax(1).tolist())


def _raw(server: Server) -> bool:
    headers = {"Inference-Header-Content-Length": "0"}
    path = f"/v2/models/{server.deployment}/infer"
    return bool(server.http.post(path, content=server.images.tobytes(), headers=headers).status_code == 200)


CHECKS: dict[str, Callable[[Server], bool]] = {
    "the server is live": lambda s: s.client.is_server_live(),
    "the server is ready": lambda s: s.client.is_server_ready(),
    "the model is ready": lambda s: s.client.is_model_ready(s.deployment),
    "a version of it is ready": lambda s: s.client.is_model_ready(s.deployment, s.metadata()["versions"][0]),
    "an unknown model is not ready": lambda s: not s.client.is_model_ready("nobody"),
    "server metadata names its extensions": lambda s: (
        "binary_tensor_data" in s.client.get_server_metadata()["extensions"]
    ),
    "model metadata names inputs and outputs": lambda s: {o["name"] for o in s.metadata()["outputs"]} >= {"logits"},
    "model configuration": lambda s: s.client.get_model_config(s.deployment)["max_batch_size"] >= 1,
    "statistics": lambda s: s.client.get_inference_statistics(s.deployment)["model_stats"][0]["name"] == s.deployment,
    "JSON in, JSON out": _equal(False, False),
    "JSON in, binary out": _equal(False, True),
    "binary in, JSON out": _equal(True, False),
    "binary in, binary out": _equal(True, True),
    "raw bytes alone": _raw,
    "the best classes as text": _best,
    "a request's id comes back": lambda s: s.infer(request_id="mine-7").get_response()["id"] == "mine-7",
    "a version can be asked for": lambda s: s.repeats(s.logits(model_version=s.metadata()["versions"][0])),
    "gzip both ways": _packed("gzip"),
    "deflate both ways": _packed("deflate"),
    "an unknown model is 404": lambda s: s.refuses("404", s.infer, "nobody"),
    "an unknown version is 404": lambda s: s.refuses("404", s.infer, model_version="999999"),
    "a wrong shape is 400": _refused(shape=[1, 1]),
    "a wrong datatype is 400": _refused(datatype="FP64"),
    "a wrong number of values is 400": _refused(data=[0]),
    "a wrong number of bytes is 400": _refused(data=None, parameters={"binary_data_size": 1}),
    "a body that is not JSON is 400": lambda s: s.refuses_body(b"{"),
    "loading attaches": _loads,
    "a loaded model is listed": lambda s: {s.deployment, s.composed} <= _index(s),
    "a request can name the module alone": lambda s: _near(s.logits(s.composed), s.logits()),
    "unloading detaches": _unloads,
    "logits and fingerprint are the same afterwards, bit for bit": lambda s: (
        any(np.array_equal(s.logits(), s.before) for _ in range(TRIES))
        and s.metadata()["parameters"]["target_fingerprint"] == s.digest
    ),
}


def run(url: str, deployment: str, module: str) -> dict[str, str]:
    """Run all checks in order; returns by name an empty string for a passed check, else the reason."""
    server = Server(url, deployment, module)
    found: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            found[name] = "" if check(server) else "expected another response"
        except (InferenceServerException, httpx.HTTPError, LookupError, ValueError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    with suppress(InferenceServerException):
        server.client.unload_model(server.composed)
    server.client.close()
    server.http.close()
    return found


def main(
    url: Annotated[str, typer.Argument(help="URL of a serving process.")],
    deployment: Annotated[str, typer.Argument(help="Name of a deployment that is served without the module.")],
    module: Annotated[str, typer.Argument(help="Id of a module for it.")],
) -> None:
    """Print the result of every check and the number of passed checks."""
    console = Console()
    found = run(url.rstrip("/"), deployment, module)
    for name, wrong in found.items():
        console.print(f"{'failed' if wrong else 'passed'}  {name}{': ' if wrong else ''}{wrong}", markup=False)
    passed = sum(not wrong for wrong in found.values())
    console.print(f"{passed} of {len(found)}")
    raise typer.Exit(0 if passed == len(found) else 1)


if __name__ == "__main__":
    typer.run(main)
