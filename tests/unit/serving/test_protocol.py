"""The Open Inference Protocol, asked for by Triton's own client."""

import gzip
import json
import struct
import time
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from pnc_core.identity import fingerprint
from pnc_core.images import preprocess
from pnc_core.module.composed import attach
from tests.unit.serving.world import NAME, World


@pytest.fixture
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(url)
    yield made
    made.close()


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{url}") as made:
        yield made


@pytest.fixture(autouse=True)
def bare(here: World, http: httpx.Client) -> None:
    """Every test begins with the target alone."""
    generation = here.want([])
    assert http.post(f"/internal/sync/{NAME}?generation={generation}").status_code == 200


def _input(images: torch.Tensor, *, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images.numpy(), binary_data=binary)
    return tensor


def _refused(call: object, status: str, *arguments: object, **named: object) -> str:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    assert caught.value.status() == status
    return str(caught.value.message())


def test_the_server_says_what_it_is_and_that_it_is_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    assert not client.is_model_ready("nobody")
    found = client.get_server_metadata()
    assert found["name"] == "pnc-zoo"
    assert "binary_tensor_data" in found["extensions"]


def test_a_model_says_what_it_takes_and_gives(client: triton.InferenceServerClient, here: World) -> None:
    found = client.get_model_metadata(NAME)
    assert found["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}]
    assert [output["shape"] for output in found["outputs"]] == [[-1, 5], [-1, 5]]
    assert found["parameters"]["target_fingerprint"] == fingerprint(here.target[0])
    assert client.get_model_metadata(NAME, model_version=found["versions"][0])["versions"] == found["versions"]
    assert client.get_model_config(NAME)["max_batch_size"] == 8
    assert client.get_inference_statistics(NAME)["model_stats"][0]["name"] == NAME
    assert client.get_inference_statistics()["model_stats"][0]["name"] == NAME


def test_json_and_binary_tensors_give_one_answer_either_way(client: triton.InferenceServerClient, here: World) -> None:
    images = here.images(3)
    with torch.no_grad():
        wanted = here.target[0](preprocess(images, here.target[1])).numpy()
    answers = []
    for sent in (True, False):
        for asked in (True, False):
            outputs = [triton.InferRequestedOutput("logits", binary_data=asked)]
            answers.append(client.infer(NAME, [_input(images, binary=sent)], outputs=outputs).as_numpy("logits"))
    assert all(np.array_equal(answers[0], other) for other in answers[1:])
    assert np.allclose(answers[0], wanted, atol=1e-5)


def test_what_was_asked_comes_back(client: triton.InferenceServerClient, here: World) -> None:
    answer = client.infer(NAME, [_input(here.images(2))], request_id="mine-7")
    head = answer.get_response()
    assert head["id"] == "mine-7"
    assert head["model_name"] == NAME
    assert head["model_version"] == head["parameters"]["generation"]
    both = {name: answer.as_numpy(name) for name in ("logits", "probabilities")}
    assert np.allclose(both["probabilities"].sum(1), 1, atol=1e-6)
    assert both["logits"].dtype == np.float32
    assert client.infer(NAME, [_input(here.images(2))]).get_response().get("id", "") == ""


def test_preprocessed_floats_are_taken_as_they_are(client: triton.InferenceServerClient, here: World) -> None:
    images = here.images(2)
    tensor = triton.InferInput("preprocessed", [2, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(preprocess(images, here.target[1]).numpy())
    floats, pixels = (client.infer(NAME, [one]).as_numpy("logits") for one in (tensor, _input(images)))
    assert np.array_equal(floats, pixels)


def test_the_best_classes_come_as_text(client: triton.InferenceServerClient, here: World) -> None:
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]
        found = client.infer(NAME, [_input(here.images(3))], outputs=outputs).as_numpy("probabilities")
        assert found.shape == (3, 2)
        score, place, name = (found[0, 0].decode() if binary else found[0, 0]).split(":")
        assert (here.target[1].classes[int(place)], 0.2 <= float(score) <= 1) == (name, True)


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
def test_bodies_may_be_compressed_either_way(client: triton.InferenceServerClient, here: World, kind: str) -> None:
    images = here.images(100)
    plain = client.infer(NAME, [_input(images)]).as_numpy("logits")
    packed = client.infer(
        NAME, [_input(images)], request_compression_algorithm=kind, response_compression_algorithm=kind
    ).as_numpy("logits")
    assert np.allclose(plain, packed, atol=1e-5)


def test_raw_bytes_are_the_only_input(http: httpx.Client, here: World) -> None:
    images = here.images(2)
    raw = {"Inference-Header-Content-Length": "0"}
    answer = http.post(f"/v2/models/{NAME}/infer", content=images.numpy().tobytes(), headers=raw)
    assert answer.status_code == 200
    end = int(answer.headers["Inference-Header-Content-Length"])
    head = json.loads(answer.content[:end])
    assert head["outputs"][0]["shape"] == [2, 5]
    assert len(answer.content) - end == sum(o["parameters"]["binary_data_size"] for o in head["outputs"])


def test_load_attaches_unload_detaches_and_leaving_is_exact(client: triton.InferenceServerClient, here: World) -> None:
    images = here.images(4)
    before = client.infer(NAME, [_input(images)]).as_numpy("logits")
    first, second = (f"{NAME}+{module}" for module in here.modules[:2])
    client.load_model(first)
    client.load_model(first)  # again changes nothing
    client.load_model(second)
    names = {row["name"] for row in client.get_model_repository_index()}
    assert names == {NAME, first, second}
    all_ = client.infer(NAME, [_input(images)])
    assert all_.as_numpy("logits").shape == (4, 5 + 1 + 2)
    assert json.loads(all_.get_response()["parameters"]["classes"]) == ["0", "1", "2", "3", "4", "5", "6", "7"]
    one = client.infer(second, [_input(images)])
    assert one.as_numpy("logits").shape == (4, 5 + 2)
    assert one.get_response()["parameters"]["modules"] == here.modules[1]
    local = attach(here.target[0], here.bundles[1])
    with torch.no_grad():
        wanted = local(preprocess(images, here.target[1])).numpy()
    assert np.allclose(one.as_numpy("logits"), wanted, atol=1e-4)
    client.unload_model(first)
    client.unload_model(second)
    assert {row["name"] for row in client.get_model_repository_index()} == {NAME}
    assert np.array_equal(client.infer(NAME, [_input(images)]).as_numpy("logits"), before)
    found = client.get_model_metadata(NAME)["parameters"]
    assert found["target_fingerprint"] == fingerprint(here.target[0])
    _refused(client.infer, "404", second, [_input(images)])


def test_a_request_chooses_among_the_modules(client: triton.InferenceServerClient, here: World) -> None:
    images = here.images(2)
    for module in here.modules:
        client.load_model(f"{NAME}+{module}")
    widths = {
        text: client.infer(NAME, [_input(images)], parameters={"modules": text}).as_numpy("logits").shape[1]
        for text in ("", here.modules[0], f"{here.modules[2]},{here.modules[1]}", ",".join(here.modules))
    }
    assert list(widths.values()) == [5, 6, 8, 9]
    message = _refused(client.infer, "404", NAME, [_input(images)], parameters={"modules": "mod_nobody"})
    assert "mod_nobody" in message


def test_an_earlier_generation_can_be_asked_for(client: triton.InferenceServerClient, here: World) -> None:
    images = here.images(2)
    before = client.infer(NAME, [_input(images)])
    client.load_model(f"{NAME}+{here.modules[0]}")
    version = before.get_response()["model_version"]
    again = client.infer(NAME, [_input(images)], model_version=version)
    assert again.get_response()["model_version"] == version
    assert np.array_equal(again.as_numpy("logits"), before.as_numpy("logits"))
    _refused(client.infer, "404", NAME, [_input(images)], model_version="999999")
    _refused(client.infer, "404", NAME, [_input(images)], model_version="latest")


def test_what_cannot_be_loaded_is_refused_and_nothing_changes(
    client: triton.InferenceServerClient, here: World
) -> None:
    before = client.get_model_metadata(NAME)
    for name, status in ((f"{NAME}+mod_nobody", "404"), ("nobody", "404"), (f"nobody+{here.modules[0]}", "404")):
        _refused(client.load_model, status, name)
    _refused(client.unload_model, "400", NAME)
    client.load_model(NAME)  # it is served
    assert client.get_model_metadata(NAME) == before


def _document(**changes: object) -> dict[str, object]:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 8, 8], "data": [0] * 64, **changes}
    return {"inputs": [{name: value for name, value in tensor.items() if value is not None}]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "inputs"),
        ([], "object"),
        ({"inputs": []}, "inputs"),
        (_document(name="pictures"), "pictures"),
        (_document(name=["images"]), "images"),
        (_document(datatype="INT8"), "datatype UINT8"),
        (_document(shape=[1, 8, 8]), "shape"),
        (_document(shape=[0, 1, 8, 8]), "shape"),
        (_document(shape=[True, 1, 8, 8]), "shape"),
        (_document(data=None), "data"),
        (_document(data=[0] * 63), "64 numbers"),
        (_document(data=[[0, 1], [2]]), "different lengths"),
        (_document(data=[256] * 64), "0 to 255"),
        (_document(data=[0.5] * 64), "integers"),
        (_document(data=["a"] * 64), "numbers"),
        (_document(data=None, parameters={"binary_data_size": 64}), "bytes after"),
        ({**_document(), "id": 7}, "id"),
        ({**_document(), "parameters": {"a": []}}, "parameters"),
        ({**_document(), "parameters": {"modules": 7}}, "modules"),
        ({**_document(), "outputs": [{"name": "nothing"}]}, "nothing"),
        ({**_document(), "outputs": [{"name": {}}]}, "outputs"),
        ({**_document(), "outputs": {}}, ""),
        ({**_document(), "outputs": [{"name": "logits", "parameters": {"classification": "x"}}]}, "classification"),
    ],
)
def test_what_is_not_a_request_is_said_to_be_none(http: httpx.Client, document: object, said: str) -> None:
    before = http.get(f"/v2/models/{NAME}").json()
    answer = http.post(f"/v2/models/{NAME}/infer", json=document)
    assert http.get(f"/v2/models/{NAME}").json() == before
    if document == {**_document(), "outputs": {}}:  # as good as none: all outputs
        assert answer.status_code == 200
        return
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "headers", "said"),
    [
        (b"{", {}, "JSON"),
        (b"\xff", {}, "JSON"),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, "Inference-Header-Content-Length"),
        (b"{}", {"Inference-Header-Content-Length": "3"}, "Inference-Header-Content-Length"),
        (b"{}", {"Inference-Header-Content-Length": "0" * 5000}, "Inference-Header-Content-Length"),
        (b"abc", {"Inference-Header-Content-Length": "0"}, "multiple of 64"),
        (b"{}", {"Content-Encoding": "br"}, "gzip"),
        (b"no gzip", {"Content-Encoding": "gzip"}, "gzip"),
        (gzip.compress(b"{" * 1000, mtime=0)[:-9], {"Content-Encoding": "gzip"}, "cut off"),
        (gzip.compress(b" " * 10**8, mtime=0), {"Content-Encoding": "gzip"}, "once inflated"),
    ],
)
def test_bytes_that_are_no_request_are_refused_at_once(
    http: httpx.Client, content: bytes, headers: dict[str, str], said: str
) -> None:
    before = http.get(f"/v2/models/{NAME}").json()
    started = time.monotonic()
    answer = http.post(f"/v2/models/{NAME}/infer", content=content, headers=headers)
    assert answer.status_code == 400
    assert http.get(f"/v2/models/{NAME}").json() == before
    assert said in answer.json()["error"]
    assert time.monotonic() - started < 2


def test_floats_that_are_no_numbers_are_refused(http: httpx.Client) -> None:
    raw = struct.pack("<64f", *([float("nan")] * 64))
    head = {
        "inputs": [
            {
                "name": "preprocessed",
                "datatype": "FP32",
                "shape": [1, 1, 8, 8],
                "parameters": {"binary_data_size": len(raw)},
            }
        ]
    }
    text = json.dumps(head).encode()
    answer = http.post(
        f"/v2/models/{NAME}/infer", content=text + raw, headers={"Inference-Header-Content-Length": str(len(text))}
    )
    assert (answer.status_code, "finite" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize(("method", "path"), [("GET", "/v2/nothing"), ("PUT", "/v2"), ("GET", "/v2/models/nobody")])
def test_every_error_has_the_protocol_s_form(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert answer.status_code in (404, 405)
    assert answer.json().keys() == {"error"}


def test_everything_is_counted(http: httpx.Client, client: triton.InferenceServerClient, here: World) -> None:
    client.infer(NAME, [_input(here.images(2))])
    text = http.get("/metrics").text
    assert f'pnc_requests_total{{deployment="{NAME}"' in text
    assert "pnc_batch_images_bucket" in text
    assert "pnc_drain_seconds_count" in text
