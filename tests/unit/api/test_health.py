from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app.process import troubles
from app.zoo import Zoo


def test_a_directory_that_cannot_be_written_is_not_ready_and_is_tried_seldom(
    http: httpx.Client, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []
    real, now = troubles.try_to_write, [1000.0]

    def counting(directory: Path) -> None:
        tried.append(directory)
        real(directory)

    monkeypatch.setattr(troubles, "try_to_write", counting)
    monkeypatch.setattr(zoo.writability, "_clock", lambda: now[0])
    for _ in range(5):
        assert http.get("/readyz").status_code == 200
    assert len(tried) == 3  # data directory, database, store
    zoo.staging.rename(zoo.staging.with_name("elsewhere"))
    assert http.get("/readyz").status_code == 200
    now[0] += 10
    answer = http.get("/readyz")
    assert (answer.status_code, "PNC_DATA_DIR" in answer.json()["detail"]) == (503, True)
    zoo.staging.with_name("elsewhere").rename(zoo.staging)
    now[0] += 10
    assert http.get("/readyz").status_code == 200


def test_ready_once_the_schema_is_there(http: httpx.Client, zoo: Zoo) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}
    with zoo.database.write() as session:
        session.execute(text("DELETE FROM alembic_version"))
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "pnc migrate" in answer.json()["detail"]
    assert http.get("/healthz").status_code == 200
