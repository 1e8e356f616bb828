"""Every operation of the document, asked by one workspace for another's things: they are not there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.access.keys import SCOPES, Caller
from app.compositions import service as compositions
from app.db.tables import Base
from app.deployments import service as deployments
from app.imports import service as imports
from app.jobs.tables import JobRow
from app.modules.tables import ModuleRow
from app.store.tables import UploadRow
from app.webhooks import outbox
from app.webhooks import service as webhooks
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.inprocess import FakeServing
from tests.unit.keyed import client_of, keyed_app, new_key

OWN_ANSWER = {
    "healthz",
    "readyz",
    "get_workspace",
    "change_workspace",
    "create_key",
    "create_model",
    "create_upload",
    "trust_key",
    "create_webhook",
}
"""Operations that name nothing and answer with what is the caller's own."""
BY_NAME = {"predict", "predict_batch"}
"""Passed on to the serving process, whose tests show what it does with the workspace that it is told."""


@pytest.fixture
def app(tmp_path: Path, serving: FakeServing) -> Iterator[FastAPI]:
    """The application, which asks for keys."""
    with keyed_app(tmp_path, serving) as app:
        yield app


@pytest.fixture
def theirs(app: FastAPI) -> dict[str, Any]:
    """Ids and names of what the other workspace has, by the parameters that would name them."""
    zoo: Zoo = app.state.zoo
    key_id, _ = new_key(zoo, ["admin"], "red")
    red = zoo.seen_by(Caller("red", frozenset(SCOPES)))
    with red.database.write() as session:
        hook, _ = webhooks.create(session, url="https://hooks.example/pnc")
        module = seeds.module(session, red)
        deployments.put(session, "digits", "low")
        deployments.attach(session, "digits", module.id)
        job = session.scalars(select(JobRow)).one()
        seeds.upload(session, red, b"unused")
        composition = compositions.submit(
            session, target="low", module_ids=[module.id], dataset_id=job.dataset_id, head="affine"
        )
        upload = session.scalars(select(UploadRow.id).order_by(UploadRow.id.desc())).first()
        return {
            "model": "low",
            "version": 1,
            "alias": "production",
            "upload": upload,
            "dataset": job.dataset_id,
            "job": job.id,
            "module": session.scalars(select(ModuleRow.id)).one(),
            "deployment": "digits",
            "composition": composition.id,
            "key": key_id,
            "name": "release",
            "webhook": hook.id,
            "import_id": imports.submit(session, source="torchvision/resnet18", hosts=()).id,
            "delivery": outbox.post_test(session, hook.id).id,
        }


def everything(zoo: Zoo, workspace: str) -> list[tuple[str, list[Any]]]:
    """All rows of a workspace, to see that nothing changed."""
    with zoo.database.read() as session:
        return [
            (table.name, sorted(map(str, session.execute(select(table).where(table.c.workspace == workspace)).all())))
            for table in Base.metadata.sorted_tables
            if "workspace" in table.c
        ]


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, m, o) for path, item in app.openapi()["paths"].items() for m, o in item.items()]


def body_of(app: FastAPI, operation: dict[str, Any], theirs: dict[str, Any]) -> Any:
    """The document's example of a body, naming the other workspace's things."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    schema = app.openapi()["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    examples = schema.get("examples") or [next(iter(content.get("examples", {"": {"value": {}}}).values()))["value"]]
    body = json.loads(json.dumps(examples[0]))
    named = {"target": "low", "source": "high", "modules": [theirs["module"]]}
    required = {
        name: {"integer": 1}.get(schema["properties"][name].get("type"), "x") for name in schema.get("required", ())
    }
    body = {**required, **body}
    return {**body, **{k: v for k, v in {**theirs, **named}.items() if k in body and k not in ("version", "alias")}}


@pytest.mark.always
def test_no_operation_tells_of_or_touches_another_workspace(app: FastAPI, theirs: dict[str, Any]) -> None:
    zoo: Zoo = app.state.zoo
    _, secret = new_key(zoo, SCOPES, "blue")
    before = everything(zoo, "red")
    seen: dict[str, int] = {}
    with client_of(app, secret) as client:
        for path, method, operation in operations(app):
            name = operation["operationId"]
            answer = client.request(method, path.format_map(theirs), json=body_of(app, operation, theirs))
            seen[name] = answer.status_code
            if name in OWN_ANSWER | BY_NAME:
                continue
            if "{" in path:
                expected = {422} if name == "put_deployment" else {404}
            else:
                expected = {200} if method == "get" or name in ("validate_job", "validate_spec") else {422}
            assert answer.status_code in expected, (method, path, answer.status_code, answer.text)
            if method == "get" and name != "list_audit":  # which tells of the caller's own attempts
                _tells_nothing(answer, theirs)
    assert everything(zoo, "red") == before
    assert len(seen) > 45


def _tells_nothing(answer: httpx.Response, theirs: dict[str, Any]) -> None:
    """A list holds nothing of theirs."""
    if answer.status_code == 200:
        for value in (v for v in map(str, theirs.values()) if "_" in v):
            assert value not in answer.text
        assert '"low' not in answer.text


def test_an_unknown_id_and_a_foreign_one_get_the_same_answer(app: FastAPI, theirs: dict[str, Any]) -> None:
    _, secret = new_key(app.state.zoo, SCOPES, "blue")
    nowhere = {
        name: value if name in ("version", "alias") else value[:-3] + "000" if "_" in str(value) else "zzz9"
        for name, value in theirs.items()
    }
    with client_of(app, secret) as client:
        for path, method, operation in operations(app):
            if "{" not in path or operation["operationId"] in BY_NAME:
                continue
            answers = []
            for names in (theirs, nowhere):
                answer = client.request(method, path.format_map(names), json=body_of(app, operation, theirs))
                text = answer.text
                for value in map(str, (*theirs.values(), *nowhere.values())):
                    text = text.replace(value, "*") if len(value) > 2 else text
                answers.append((answer.status_code, _without_id(text)))
            assert answers[0] == answers[1], (method, path)


def _without_id(text: str) -> Any:
    try:
        document = json.loads(text)
    except ValueError:
        return text
    document.pop("request_id", None)
    return document


def test_the_serving_process_hears_the_workspace_of_the_key_and_not_of_a_header(
    app: FastAPI, serving: FakeServing, theirs: dict[str, Any]
) -> None:
    _, secret = new_key(app.state.zoo, ["read"], "blue")
    headers = {"X-PNC-Workspace": "red", "X-PNC-Internal": "guess", "Content-Type": "image/png"}
    with client_of(app, secret) as client:
        for path in ("predict", "predict/batch"):
            client.post(f"/v1/deployments/digits/{path}", content=b"\x89PNG image", headers=headers)
    for asked in serving.requests[-2:]:
        assert asked.headers["x-pnc-workspace"] == "blue"
        assert asked.headers["x-pnc-internal"] != "guess"
        assert "authorization" not in asked.headers
