"""Every page without a resource of its own answers, for an empty zoo."""

import httpx
import pytest
from fastapi import FastAPI
from nicegui import core

from app.zoo import Zoo
from tests.unit.inprocess import InProcess

PATHS = (
    *("/", "/add", "/add?source=torchvision/resnet18", "/datasets", "/jobs", "/new", "/modules", "/deployments"),
    *("/compare", "/webhooks", "/keys", "/audit", "/settings", "/help"),
)


@pytest.mark.parametrize("path", PATHS)
def test_a_page_answers(app: FastAPI, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    with InProcess(app) as transport, httpx.Client(base_url="http://localhost:8000", transport=transport) as http:
        monkeypatch.setattr(core, "loop", transport.loop())
        answer = http.get(path)
    assert answer.status_code == 200
    assert "Audit log" in answer.text
