from collections.abc import Iterator

import httpx
import pytest


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000"])
def test_loopback_names_may_pass(http: httpx.Client, host: str) -> None:
    assert http.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.always
@pytest.mark.parametrize("host", ["10.1.2.3", "10.1.2.3:8000", "[2001:db8::1]:8000"])
def test_monitors_may_ask_by_address_and_nobody_else(http: httpx.Client, host: str) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert http.get(path, headers={"Host": host}).status_code == 200
    for path in ("/v1/models", "/", "/openapi.json", "/v1/models/healthz"):
        assert http.get(path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("host", ["evil.example", "10.1.2.3.evil.example", "10.1.2", "1.2.3.4.5", "[::1", ""])
def test_a_name_is_not_an_address(http: httpx.Client, host: str, path: str) -> None:
    assert http.get(path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", ""])
def test_other_hosts_are_refused(http: httpx.Client, host: str) -> None:
    answer = http.get("/v1/models", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://[::1", "", "http://localhost:9999", "http://localhost:8000.evil"]
)
def test_writes_of_foreign_pages_are_refused(http: httpx.Client, origin: str) -> None:
    answer = http.post("/v1/models", json={"name": "a"}, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
    assert http.get("/v1/models").json()["data"] == []


def test_writes_of_our_own_page_pass(http: httpx.Client) -> None:
    assert http.post("/v1/models", json={"name": "a"}, headers={"Origin": "http://localhost:8000"}).status_code == 201


def test_a_body_over_the_limit_is_refused_by_its_length(http: httpx.Client) -> None:
    answer = http.post("/v1/models", json={"name": "a", "description": "x" * 20_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_body_over_the_limit_is_refused_while_it_comes(http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield b" " * 30_000

    headers = {"Content-Type": "application/json", "Content-Length": "10"}
    answer = http.post("/v1/models", content=chunks(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
