"""A key is shown once, and is in nothing else that the service says or keeps."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.db.tables import Base
from app.settings import Settings
from tests.unit.inprocess import FakeServing
from tests.unit.keyed import OWN, client_of, keyed_app, new_key


@pytest.fixture
def app(tmp_path: Path, serving: FakeServing) -> Iterator[FastAPI]:
    """The application, which asks for keys."""
    with keyed_app(tmp_path, serving) as app:
        yield app


def test_no_secret_is_in_any_answer_log_line_or_row(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, secret = new_key(app.state.zoo, ["admin"])
    said: list[str] = []
    with client_of(app, secret) as client:
        made = client.post("/v1/keys", json={"name": "ci", "scopes": ["read"]}, headers={"Idempotency-Key": "k"}).json()
        for method, path in (
            ("GET", "/v1/keys"),
            ("GET", "/v1/audit"),
            ("GET", "/v1/workspace"),
            ("POST", "/v1/models"),
            ("GET", f"/v1/models/{secret}"),
            ("DELETE", "/v1/keys/none"),
            ("POST", "/v1/cloning-jobs"),
            ("GET", "/nowhere"),
            ("GET", "/metrics"),
        ):
            answer = client.request(method, path, json={})
            said += [str(answer.headers)] + ([answer.text] if secret not in path else [])
    with client_of(app, made["secret"][:-1]) as client:
        said.append(client.get("/v1/models").text)
    with app.state.zoo.database.read() as session:
        for table in Base.metadata.sorted_tables:
            said += [str(row) for row in session.execute(select(table))]
    said += [r.getMessage() for r in caplog.records if not r.name.startswith("httpx")]  # the test's own client
    for hidden in (secret, made["secret"], OWN):
        assert not [text for text in said if hidden in text]


def test_a_webhook_s_secret_is_in_no_row_and_a_repeated_request_still_shows_it(app: FastAPI) -> None:
    _, secret = new_key(app.state.zoo, ["admin"])
    body, once = {"url": "https://hooks.example/pnc"}, {"Idempotency-Key": "k"}
    with client_of(app, secret) as client:
        made = client.post("/v1/webhooks", json=body, headers=once)
        assert client.post("/v1/webhooks", json=body, headers=once).json() == made.json()
        path = f"/v1/webhooks/{made.json()['id']}/rotate"
        rotated = client.post(path, headers={"Idempotency-Key": "r"}).json()["secret"]
        assert client.post(path, headers={"Idempotency-Key": "r"}).json()["secret"] == rotated
    with app.state.zoo.database.read() as session:
        rows = [str(row) for table in Base.metadata.sorted_tables for row in session.execute(select(table))]
    for hidden in (made.json()["secret"], rotated):
        assert hidden.startswith("whsec_")
        assert not [row for row in rows if hidden in row]


def test_settings_do_not_show_their_secret(tmp_path: Path) -> None:
    assert OWN not in repr(Settings(data_dir=tmp_path, internal_key=OWN, secret_key=OWN))
    with pytest.raises(ValueError, match="internal_key") as refused:
        Settings(data_dir=tmp_path, internal_key="short secret")
    assert "short secret" not in str(refused.value)
