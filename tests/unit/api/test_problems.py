import json
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from app.models.tables import ModelRow

FIELDS = {"type", "title", "status", "detail", "code", "request_id", "errors"}
NAME = {"name": "a"}
DIGEST = "0" * 64
JSON = {"Content-Type": "application/json"}
ODD = "\ud800"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nowhere", None, 404, "not_found"),
        ("GET", "/v1/models/", None, 400, "invalid_path"),
        ("GET", "/v1/models/none", None, 404, "not_found"),
        ("GET", "/v1/models/none/versions", None, 404, "not_found"),
        ("GET", "/v1/models/none/versions/1", None, 404, "not_found"),
        ("GET", "/v1/models/none/versions/x", None, 422, "invalid"),
        ("GET", "/v1/models?limit=0", None, 422, "invalid"),
        ("GET", "/v1/models?limit=101", None, 422, "invalid"),
        ("GET", "/v1/models?after=%3F", None, 422, "invalid"),
        ("GET", "/v1/models?sort=name", None, 422, "invalid"),
        ("PUT", "/v1/models", NAME, 405, "method_not_allowed"),
        ("PATCH", "/v1/models/none", {}, 404, "not_found"),
        ("DELETE", "/v1/models/none", None, 404, "not_found"),
        ("POST", "/v1/models", {}, 422, "invalid"),
        ("POST", "/v1/models", [], 422, "invalid"),
        ("POST", "/v1/models", {"name": "../etc"}, 422, "invalid"),
        ("POST", "/v1/models", {"name": "a", "colour": "red"}, 422, "invalid"),
        ("PUT", "/v1/models/none/aliases/x", {"version": 1}, 404, "not_found"),
        ("DELETE", "/v1/models/none/aliases/x", None, 404, "not_found"),
        ("POST", "/v1/uploads", {"bytes": 10**15, "sha256": DIGEST}, 413, "too_large"),
        ("POST", "/v1/uploads", {"bytes": 1, "sha256": "x"}, 422, "invalid"),
        ("GET", "/v1/uploads/up_none", None, 404, "not_found"),
        ("PUT", "/v1/uploads/up_none/content", None, 404, "not_found"),
        ("POST", "/v1/uploads/up_none/complete", None, 404, "not_found"),
        ("DELETE", "/v1/uploads/up_none", None, 404, "not_found"),
        ("POST", "/v1/datasets", {"name": "a", "upload": "up_none"}, 422, "invalid"),
        ("GET", "/v1/datasets/ds_none", None, 404, "not_found"),
        ("POST", "/v1/cloning-jobs", {}, 422, "invalid"),
        ("GET", "/v1/cloning-jobs?state=odd", None, 422, "invalid"),
        ("GET", "/v1/cloning-jobs/job_none", None, 404, "not_found"),
        ("POST", "/v1/cloning-jobs/job_none/cancel", None, 404, "not_found"),
        ("GET", "/v1/cloning-jobs/job_none/events", None, 404, "not_found"),
        ("GET", "/v1/cloning-jobs/job_none/events/stream", None, 404, "not_found"),
        ("GET", "/v1/cloning-jobs/job_none/trials", None, 404, "not_found"),
        ("GET", "/v1/modules/mod_none", None, 404, "not_found"),
        ("GET", "/v1/modules/mod_none/manifest", None, 404, "not_found"),
        ("GET", "/v1/modules/mod_none/bundle", None, 404, "not_found"),
        ("GET", "/v1/modules/mod_none/bundle?payload=fat", None, 422, "invalid"),
        ("GET", "/v1/deployments/none", None, 404, "not_found"),
        ("DELETE", "/v1/deployments/none", None, 404, "not_found"),
        ("PUT", "/v1/deployments/none", {"target": "none"}, 422, "invalid"),
        ("PUT", "/v1/deployments/UPPER", {"target": "none"}, 422, "invalid"),
        ("PUT", "/v1/deployments/none/modules/mod_none", None, 404, "not_found"),
        ("DELETE", "/v1/deployments/none/modules/mod_none", None, 404, "not_found"),
    ],
)
def test_every_error_is_a_problem_document(
    http: httpx.Client, method: str, path: str, body: object, status: int, code: str
) -> None:
    answer = http.request(method, path, json=body)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) == FIELDS
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"]


def test_unknown_fields_are_named_with_their_place(http: httpx.Client) -> None:
    body = {"target": "a", "source": "b", "dataset": "c", "config": {"classes": ["7"], "keeep": 1}, "prio": 3}
    errors = http.post("/v1/cloning-jobs", json=body).json()["errors"]
    assert {e["pointer"] for e in errors} == {"/config/keeep", "/prio"}


def test_the_librarys_own_checks_reach_the_caller(http: httpx.Client) -> None:
    body = {"target": "a", "source": "b", "dataset": "c", "config": {"classes": ["7"], "keep": 7}}
    (error,) = http.post("/v1/cloning-jobs", json=body).json()["errors"]
    assert error["pointer"] == "/config"
    assert error["detail"] == "keep: expected a share above 0 and at most 1, got 7.0"


@pytest.mark.parametrize(
    ("body", "got"),
    [
        (b"{", "character 1"),
        (b'"\xff"', "UnicodeDecodeError"),
        (b"[" * 10_000, "RecursionError"),
        (b"", "got none"),
        (b"[]", "got []"),
        (b"3", "got 3"),
    ],
)
def test_a_body_that_is_no_json_object_is_said_to_be_none(http: httpx.Client, body: bytes, got: str) -> None:
    answer = http.post("/v1/models", content=body, headers=JSON)
    (error,) = answer.json()["errors"]
    assert (answer.status_code, answer.json()["code"], error["pointer"]) == (422, "invalid", "")
    assert answer.json()["detail"] == error["detail"]
    assert error["detail"].startswith("expected a body that is a JSON object in UTF-8, got ")
    assert got in error["detail"]


def test_a_form_is_told_what_to_send_instead(http: httpx.Client) -> None:
    answer = http.post("/v1/models", data={"name": "a"})
    assert answer.status_code == 422
    assert "got b'name=a'; send it as application/json" in answer.json()["detail"]


@pytest.mark.parametrize("odd", ["\ud800", "\0", "a\0b"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/datasets", {"name": "a", "upload": ODD}),
        ("/v1/datasets", {"name": "a", "upload": "up_none", "classes": ["x", ODD]}),
        ("/v1/models", {"name": "a", "description": ODD}),
        ("/v1/models", {"name": "a", ODD: 1}),
        ("/v1/uploads", {"bytes": 1, "sha256": ODD}),
        ("/v1/models/a/versions", {"upload": "up_none", "spec": {"architecture": "cnn", "classes": [ODD]}}),
        ("/v1/cloning-jobs", {"target": ODD, "source": "b", "dataset": "c", "config": {"classes": ["7"]}}),
        ("/v1/cloning-jobs", {"target": "a", "source": ODD, "dataset": "c", "config": {"classes": ["7"]}}),
        ("/v1/cloning-jobs/validate", {"target": "a", "source": "b", "dataset": ODD, "config": {"classes": ["7"]}}),
    ],
)
def test_text_that_cannot_be_stored_is_refused(http: httpx.Client, path: str, body: object, odd: str) -> None:
    text = json.dumps(body).replace(json.dumps(ODD), json.dumps(odd))
    answer = http.post(path, content=text, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["detail"].startswith(f"expected text that can be stored, got {odd!r}; ")


@pytest.mark.parametrize(
    "path", ["/v1/models/a%00b", "/v1/modules?target_fingerprint=%00", "/v1/deployments/%00/predict"]
)
def test_nul_in_path_or_query_is_refused(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert "NUL" in answer.json()["detail"]


def test_whole_surrogate_pairs_are_plain_text(http: httpx.Client) -> None:
    answer = http.post("/v1/models", content=b'{"name": "a", "description": "\\ud83d\\ude00"}', headers=JSON)
    assert (answer.status_code, answer.json()["description"]) == (201, "\N{GRINNING FACE}")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/models", "GET, HEAD, POST"),
        ("POST", "/v1/models/none", "GET, HEAD, PATCH, DELETE"),
        ("POST", "/v1/modules/none/bundle", "GET, HEAD"),
    ],
)
def test_allow_names_the_methods_of_all_routes(http: httpx.Client, method: str, path: str, allow: str) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert answer.json()["detail"].startswith(f"expected one of {allow} here, got {method} {path}; ")


def test_an_error_of_our_own_tells_nothing_but_its_id(app: FastAPI, http: httpx.Client) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("secret")

    answer = http.get("/broken", headers={"X-Request-ID": "mine-1"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["request_id"]) == ("internal_error", "mine-1")
    assert answer.headers["x-request-id"] == "mine-1"
    assert "secret" not in answer.text


def test_a_race_that_was_lost_is_a_conflict(app: FastAPI, http: httpx.Client) -> None:
    @app.get("/race")
    def race() -> None:
        with app.state.zoo.database.write() as session:
            session.add_all(ModelRow(id=f"mdl_{i}", name="same") for i in range(2))

    answer = http.get("/race")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "same" not in answer.text


def test_a_request_id_that_is_no_id_is_replaced(http: httpx.Client) -> None:
    for odd in ("a b", "x" * 65, "<script>"):
        assert http.get("/healthz", headers={"X-Request-ID": odd}).headers["x-request-id"].startswith("req_")
    assert http.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"


def test_an_error_of_our_own_is_logged_once_with_its_request(
    app: FastAPI, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/broken/{odd}")
    def broken(odd: str) -> None:
        raise RuntimeError(odd)

    assert http.get("/broken/a%E2%80%A8b", headers={"X-Request-ID": "mine-1"}).status_code == 500
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.getMessage() == r"request mine-1 failed: GET '/broken/a\u2028b'"
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError


def test_an_answer_that_broke_off_is_named_and_left_to_the_server(
    app: FastAPI, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise RuntimeError("broken")

    app.add_api_route("/stream", lambda: StreamingResponse(chunks()), response_model=None)
    with pytest.raises(RuntimeError, match="broken"):
        http.get("/stream", headers={"X-Request-ID": "mine-2"})
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert (record.getMessage(), record.exc_info) == ("request mine-2 failed: GET '/stream'", None)


def test_a_path_that_is_written_out_allows_its_own_methods_alone(http: httpx.Client) -> None:
    answer = http.options("/v1/cloning-jobs/validate")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_mistakes_of_a_large_body_are_told_the_first_hundred(http: httpx.Client) -> None:
    wrong = {f"m{number}": number for number in range(900)}
    answer = http.post("/v1/models", json={"name": "low", **wrong})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert answer.json()["errors"][0]["pointer"] == "/m0"
    broad = http.post(
        "/v1/models",
        content=b"{" + b",".join(b'"%d":1' % n for n in range(1500)) + b"}",
        headers={"Content-Type": "application/json"},
    )
    assert broad.status_code == 422
    assert "at most 1,000 members" in broad.json()["detail"]
