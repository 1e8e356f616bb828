"""Keys go to the service, and nowhere else."""

from pathlib import Path

import httpx
import pytest

from app.cli import credentials
from pnc_client import Client
from pnc_client.keys import Bearer


def sent(url: str, key: str | None = None) -> str | None:
    """The header of a request to a service at the base address, or to another absolute one."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"status": "ok"})

    with Client("http://service:8000", key=key, transport=httpx.MockTransport(answer)) as client:
        client._client.get(url)
    return seen[0].headers.get("authorization")


def test_a_key_is_sent_to_the_service_alone() -> None:
    assert sent("/healthz", "pnc_a") == "Bearer pnc_a"
    for other in (
        "http://store:8000/x",
        "https://service:8000/x",
        "http://service:9000/x",
        "http://service.evil:8000/",
    ):
        assert sent(other, "pnc_a") is None, other


def test_a_redirect_to_another_place_does_not_take_the_key_along() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(307, headers={"Location": "http://store/x"}) if len(seen) == 1 else httpx.Response(200)

    auth = Bearer("pnc_a", httpx.URL("http://service"))
    with httpx.Client(base_url="http://service", auth=auth, transport=httpx.MockTransport(answer)) as client:
        client.get("/x", follow_redirects=True)
    assert seen == ["Bearer pnc_a", None]


def test_the_environments_key_is_used_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sent("/healthz") is None
    monkeypatch.setenv("PNC_KEY", "pnc_b")
    assert sent("/healthz") == "Bearer pnc_b"
    assert sent("/healthz", "pnc_a") == "Bearer pnc_a"


def test_kept_keys_are_the_owners_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(credentials, "path", lambda: tmp_path / "kept" / "keys.json")
    file = credentials.keep("http://a/", "pnc_a")
    credentials.keep("http://b", "pnc_b")
    assert file.stat().st_mode & 0o077 == 0
    assert (credentials.find("http://a"), credentials.find("http://b/")) == ("pnc_a", "pnc_b")
    credentials.keep("http://a", None)
    assert credentials.find("http://a") is None
    monkeypatch.setenv("PNC_KEY", "pnc_c")
    assert credentials.find("http://b") == "pnc_c"
