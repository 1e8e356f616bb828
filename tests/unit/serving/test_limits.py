"""What one request may ask for, and what is said when it is too much or cannot be answered."""

import gzip
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn

from app.serving.answering import Host
from app.serving.protocol.answers import PIECE
from app.serving.protocol.bodies import TEXT, Readers
from app.serving.protocol.tensors import MOST_CHARACTERS, BadRequest, Form, TooManyImages, inflate, parse
from pnc_core.images import preprocess
from tests.unit.serving import world
from tests.unit.serving.world import NAME, World

INFER = f"/v2/models/{NAME}/infer"
RAW = {"Inference-Header-Content-Length": "0"}
OVERFLOWING = np.where(np.arange(64).reshape(1, 1, 8, 8) % 2 == 0, 3.4e38, -3.4e38).astype("<f4")
"""Finite numbers whose sums are not."""


@pytest.fixture(scope="module")
def small(here: World) -> Iterator[tuple[httpx.Client, uvicorn.Server]]:
    """A serving process that answers little at a time."""
    settings = here.zoo.settings.model_copy(
        update={"request_images": 2000, "request_outputs": 9000, "waiting_bytes": 10**6, "max_image_bytes": 600_000}
    )
    with world.serving(settings) as (address, server), httpx.Client(base_url=f"http://{address}", timeout=60) as http:
        yield http, server


@pytest.fixture
def http(small: tuple[httpx.Client, uvicorn.Server]) -> httpx.Client:
    return small[0]


def _host(small: tuple[httpx.Client, uvicorn.Server]) -> Host:
    host: Host = small[1].app.state.host  # type: ignore[attr-defined]
    return host


def _json(count: int, **more: object) -> dict[str, Any]:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [count, 1, 8, 8], "data": [7] * (64 * min(count, 2))}
    return {"inputs": [{**tensor, **more}]}


def _behind(count: int, pixels: bytes, **parameters: object) -> tuple[bytes, dict[str, str]]:
    size = {"binary_data_size": 64 * count}
    text = json.dumps({**_json(count, data=None, parameters=size), "parameters": parameters}).encode()
    return text + pixels, {"Inference-Header-Content-Length": str(len(text))}


def _too_many(answer: httpx.Response, limit: int) -> None:
    assert answer.status_code == 413
    assert str(limit) in answer.json()["error"]


def test_too_many_images_are_413_with_the_limit_however_they_come(http: httpx.Client) -> None:
    pixels = bytes(64 * 2001)
    body, headers = _behind(2001, pixels)
    _too_many(http.post(INFER, json=_json(2001)), 2000)
    _too_many(http.post(INFER, json=_json(2**40)), 2000)
    _too_many(http.post(INFER, content=pixels, headers=RAW), 2000)
    _too_many(http.post(INFER, content=body, headers=headers), 2000)
    _too_many(http.post(INFER, content=gzip.compress(pixels), headers={**RAW, "Content-Encoding": "gzip"}), 2000)
    _too_many(http.post(INFER, content=zlib.compress(body), headers={**headers, "Content-Encoding": "deflate"}), 2000)


def test_where_the_length_says_it_the_body_is_not_read(small: tuple[httpx.Client, uvicorn.Server]) -> None:
    url = small[0].base_url
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {64 * 2001}\r\n{next(iter(RAW))}: 0\r\n\r\n"
    with socket.create_connection((url.host, url.port or 0), timeout=20) as connection:
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(1000)


def test_too_many_numbers_of_answers_are_413_with_the_limit(http: httpx.Client) -> None:
    answer = http.post(INFER, content=bytes(64 * 1801), headers=RAW)  # of 5 classes each
    _too_many(answer, 9000)
    assert "at most 1800 images" in answer.json()["error"]
    assert http.post(INFER, content=bytes(64 * 1800), headers=RAW).status_code == 200


@pytest.mark.parametrize("sent", ["raw", "json", "behind", "gzip"])
def test_the_most_that_is_allowed_is_answered_as_it_would_be_in_parts(
    http: httpx.Client, here: World, sent: str
) -> None:
    images = here.images(1500)
    pixels, wants = images.numpy().tobytes(), [{"name": "logits", "parameters": {"binary_data": False}}]
    if sent == "raw":
        answer = http.post(INFER, content=pixels, headers=RAW)
        end = int(answer.headers["Inference-Header-Content-Length"])
        found = np.frombuffer(answer.content[end:], "<f4")[: 1500 * 5].reshape(1500, 5)
    else:
        document = {**_json(1500, data=images.flatten().tolist()), "outputs": wants}
        headers: dict[str, str] = {}
        content = json.dumps(document).encode()
        assert len(content) > TEXT
        if sent == "behind":
            content, headers = _behind(1500, pixels, binary_data_output=False)
        if sent == "gzip":
            content, headers = gzip.compress(content), {"Content-Encoding": "gzip"}
        answer = http.post(INFER, content=content, headers=headers)
        document = answer.json()
        assert document["outputs"][0]["shape"] == [1500, 5]
        found = np.array(document["outputs"][0]["data"], "f4").reshape(1500, 5)
    assert found.size > PIECE
    with torch.inference_mode():
        wanted = here.target[0](preprocess(images, here.target[1])).numpy()
    assert np.allclose(found, wanted, atol=1e-4)


def test_best_classes_of_many_images_come_in_order(http: httpx.Client, here: World) -> None:
    images = here.images(900)
    outputs = [{"name": "probabilities", "parameters": {"classification": 5}}]
    document = {**_json(900, data=images.flatten().tolist()), "outputs": outputs}
    answer = http.post(INFER, json=document, headers={"Accept-Encoding": "gzip"})
    found = answer.json()["outputs"][0]
    assert (found["shape"], answer.headers["content-encoding"]) == ([900, 5], "gzip")
    with torch.inference_mode():
        best = here.target[0](preprocess(images, here.target[1])).argmax(1)
    assert [int(text.split(":")[1]) for text in found["data"][::5]] == best.tolist()


def test_one_output_is_not_written_many_times(http: httpx.Client) -> None:
    answer = http.post(INFER, json={**_json(1), "outputs": [{"name": "logits"}] * 10_000})
    assert (answer.status_code, "each once" in answer.json()["error"]) == (400, True)
    assert http.post(INFER, json={**_json(1), "outputs": [{"name": "logits"}] * 2}).status_code == 400


def test_text_among_numbers_makes_no_room_for_itself_in_each_place() -> None:
    form = Form((1, 8, 8), ("logits",), 4096)
    tensor = {**_json(64)["inputs"][0], "data": [1] * (64 * 64 - 1) + ["x" * 8000]}
    with pytest.raises(BadRequest, match="of kind str"):  # numpy would take 131 MB
        parse(json.dumps({"inputs": [tensor]}).encode(), None, form)


def test_ids_and_parameters_have_a_length(http: httpx.Client) -> None:
    long = "m" * (MOST_CHARACTERS + 1)
    for document in ({**_json(1), "id": long}, {**_json(1), "parameters": {"modules": long}}):
        answer = http.post(INFER, json=document)
        assert (answer.status_code, str(MOST_CHARACTERS) in answer.json()["error"]) == (400, True)
    answer = http.post(f"/v1/deployments/{NAME}/predict?modules={long}", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_a_bomb_is_inflated_to_its_limit_and_no_further() -> None:
    packed = gzip.compress(bytes(10**8), mtime=0)
    begun = time.process_time()
    with pytest.raises(BadRequest, match="at most 1000000 bytes"):
        inflate(packed, "gzip", 10**6)
    assert time.process_time() - begun < 0.2  # 100 MB take longer


def test_bodies_that_are_held_are_bounded(small: tuple[httpx.Client, uvicorn.Server]) -> None:
    http, rooms = small[0], _host(small).bodies
    body = bytes(64 * 1000)
    with rooms.taken("default", 990_000):
        answer = http.post(INFER, content=body, headers=RAW)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        answer = http.post(f"/v1/deployments/{NAME}/predict", content=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert http.post(INFER, content=body, headers=RAW).status_code == 200
    assert rooms._used == 0


def test_long_json_is_read_by_a_child_that_is_kept(small: tuple[httpx.Client, uvicorn.Server]) -> None:
    readers = _host(small).readers
    for _ in range(2):
        assert small[0].post(INFER, json=_json(500, data=[1] * 32_000)).status_code == 200
    assert len(readers._children._idle) == 1
    readers._children._idle[0]._process.kill()
    readers._children._idle[0]._process.wait()
    assert small[0].post(INFER, json=_json(500, data=[1] * 32_000)).status_code == 200


def test_what_is_wrong_with_long_json_is_said_as_of_short() -> None:
    form, readers = Form((1, 8, 8), ("logits",), 600), Readers()
    for document in (_json(500), {"inputs": [{"name": "x" * 40_000}]}, _json(500, data=["a"] * 32_000)):
        text = json.dumps(document).encode() + b" " * TEXT
        with pytest.raises(BadRequest) as here:
            parse(text, None, form)
        with pytest.raises(BadRequest) as there:
            readers.read(text, "", None, form, 10**6)
        assert str(here.value) == str(there.value)
    with pytest.raises(TooManyImages, match="at most 600 images"):
        readers.read(json.dumps(_json(601)).encode() + b" " * TEXT, "", None, form, 10**6)
    readers.close()


@pytest.mark.parametrize("sent", ["json", "binary"])
def test_finite_inputs_whose_logits_are_not_are_422_and_name_the_image(http: httpx.Client, sent: str) -> None:
    numbers = np.zeros((20, 1, 8, 8), "<f4")
    numbers[13] = OVERFLOWING
    tensor: dict[str, Any] = {"name": "preprocessed", "datatype": "FP32", "shape": [20, 1, 8, 8]}
    if sent == "json":
        answer = http.post(INFER, json={"inputs": [{**tensor, "data": numbers.flatten().astype(float).tolist()}]})
    else:
        text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": numbers.nbytes}}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        answer = http.post(INFER, content=text + numbers.tobytes(), headers=headers)
    assert answer.status_code == 422
    assert "inf or nan for image 13" in answer.json()["error"]
    assert http.post(INFER, json=_json(1)).status_code == 200


def test_an_image_whose_logits_are_not_finite_is_422(
    small: tuple[httpx.Client, uvicorn.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = _host(small)
    trunk = host.registry.get(NAME).program.trunk
    monkeypatch.setattr(trunk, "_logits", lambda x: (torch.full((len(x), 5), torch.inf),))
    answer = small[0].post(f"/v1/deployments/{NAME}/predict", content=png())
    assert (answer.status_code, answer.json()["code"]) == (422, "not_finite")
    assert "image 0" in answer.json()["detail"]


def png() -> bytes:
    """A black image of 8x8 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head, rows = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0), zlib.compress(bytes(9 * 8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_client_that_goes_away_is_not_computed_for(
    small: tuple[httpx.Client, uvicorn.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, ran = _host(small), []
    trunk = host.registry.get(NAME).program.trunk
    logits = trunk._logits

    def slowly(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ran.append(len(x))
        time.sleep(0.05)
        return logits(x)

    monkeypatch.setattr(trunk, "_logits", slowly)
    url, body = small[0].base_url, bytes(64 * 1800)
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{next(iter(RAW))}: 0\r\n\r\n"
    with socket.create_connection((url.host, url.port or 0), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        _until(lambda: len(ran) > 2)
    _until(lambda: host.engine._requests._used == 0)
    assert len(ran) < 150  # of 225 slices
    _until(lambda: host.registry.get(NAME).use.requests == 0)


def test_a_body_that_is_broken_off_is_no_error_of_ours(
    small: tuple[httpx.Client, uvicorn.Server], caplog: pytest.LogCaptureFixture
) -> None:
    url = small[0].base_url
    for path in (INFER, f"/v1/deployments/{NAME}/predict"):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6400\r\n\r\n"
        with socket.create_connection((url.host, url.port or 0), timeout=20) as connection:
            connection.sendall(head.encode() + bytes(100))
            time.sleep(0.1)
    time.sleep(0.3)
    _until(lambda: _host(small).bodies._used == 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def _until(what: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_is_not_ready_when_networks_are_not_run_any_more(
    small: tuple[httpx.Client, uvicorn.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    http, host = small[0], _host(small)
    assert http.get("/readyz").status_code == 200
    monkeypatch.setattr(host.engine, "_busy", time.monotonic() - host.engine.limits.stuck - 1)
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "inference_stopped")
    assert http.get("/v2/health/ready").status_code == 503
    assert http.get("/healthz").status_code == 503  # only a restart helps
    answer = http.post(INFER, json=_json(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    answer = http.post(f"/v1/deployments/{NAME}/predict", content=png())
    assert (answer.status_code, answer.json()["code"]) == (503, "inference_stopped")


def test_readiness_needs_none_of_the_threads_that_requests_use(small: tuple[httpx.Client, uvicorn.Server]) -> None:
    """Images that take long to decode keep neither `/readyz` nor other requests waiting."""
    http, host = small[0], _host(small)
    release = threading.Event()
    real = host.decoders.decode
    host.decoders.decode = lambda *given: (release.wait(60), real(*given))[1]  # type: ignore[method-assign]
    try:
        threads = [
            threading.Thread(
                target=httpx.post,
                args=(f"{http.base_url}/v1/deployments/{NAME}/predict",),
                kwargs={"content": png(), "timeout": 60},
            )
            for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        assert http.get("/readyz", timeout=20).status_code == 200
        assert http.get("/metrics", timeout=20).status_code == 200
        assert http.post(INFER, json=_json(1), timeout=20).status_code == 200
    finally:
        release.set()
        for thread in threads:
            thread.join()
        host.decoders.decode = real  # type: ignore[method-assign]


def test_what_is_wanted_and_not_loaded_yet_is_503_and_not_404(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.serving.loader import building as module

    go_on = threading.Event()
    load = module.load_trunk

    def slowly(*given: Any) -> Any:
        assert go_on.wait(60)
        return load(*given)

    monkeypatch.setattr(module, "load_trunk", slowly)
    app = world.create_serving_app(fresh.zoo.settings)
    registry = app.state.host.registry
    paths = (INFER, f"/v1/deployments/{NAME}/predict", "/v2/models/nobody/infer")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    _until(lambda: server.started)
    with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=60) as http:
        for path in paths:  # whether there is one of that name is not known yet
            answer = http.post(path, json=_json(1))
            assert (answer.status_code, answer.headers["retry-after"].isdigit()) == (503, True), path
            assert "loading" in answer.text
        go_on.set()
        _until(registry.settled)
        _until(lambda: registry._wanted_at is not None)
        assert http.post(INFER, json=_json(1)).status_code == 200
        answer = http.post("/v2/models/nobody/infer", json=_json(1))
        assert (answer.status_code, "PUT" in answer.json()["error"]) == (404, True)
        registry._wanted = {**registry._wanted, NAME: 7}  # it is wanted, and will be served
        answer = http.post(f"/v2/models/{NAME}/versions/7/infer", json=_json(1))
        assert answer.status_code in (404, 503)  # the next look at the database says better
    server.should_exit = True
    thread.join(30)
    listening.close()


def test_a_new_deployment_is_loading_until_it_is_served(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.deployments import service as deployments
    from app.serving.loader import building as module

    with world.serving(fresh.zoo.settings) as (address, _), httpx.Client(base_url=f"http://{address}") as http:
        go_on, compose = threading.Event(), module.compose

        def slowly(*given: Any) -> Any:
            assert go_on.wait(60)
            return compose(*given)

        monkeypatch.setattr(module, "compose", slowly)
        with fresh.zoo.database.write() as session:
            generation = deployments.put(session, "other", "low").deployment.generation
        sync = threading.Thread(
            target=httpx.post,
            args=(f"http://{address}/internal/sync/other?generation={generation}",),
            kwargs={"timeout": 60},
        )
        sync.start()
        _until(lambda: http.post("/v2/models/other/infer", json=_json(1)).status_code == 503)
        assert http.post(INFER, json=_json(1)).status_code == 200
        go_on.set()
        sync.join()
        assert http.post("/v2/models/other/infer", json=_json(1)).status_code == 200
