"""HEAD is answered as GET is, without a body."""

import httpx
import pytest

from app.zoo import Zoo
from tests.unit import seeds


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/redoc",
        "/docs/files/swagger-ui.css",
        "/v1/models",
        "/v1/models/low",
        "/v1/models/none",
        "/v1/cloning-jobs?limit=0",
        "/v2/models/none/ready",
    ],
)
def test_head_says_what_get_would(http: httpx.Client, zoo: Zoo, path: str) -> None:
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low")
    head, whole = http.head(path), http.get(path)
    assert head.status_code == whole.status_code
    for name in ("content-type", "content-length"):
        assert head.headers[name] == whole.headers[name]
    assert head.content == b""
    assert "x-request-id" in head.headers


@pytest.mark.parametrize(
    ("path", "allow"), [("/v1/uploads/none/complete", "POST"), ("/v1/cloning-jobs/none/events/stream", "GET")]
)
def test_head_of_what_changes_something_or_never_ends_is_refused(http: httpx.Client, path: str, allow: str) -> None:
    answer = http.head(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
