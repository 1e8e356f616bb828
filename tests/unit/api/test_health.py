import httpx
from sqlalchemy import text

from app.zoo.zoo import Zoo


def test_ready_once_the_schema_is_there(http: httpx.Client, zoo: Zoo) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}
    with zoo.database.write() as session:
        session.execute(text("DELETE FROM alembic_version"))
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "alembic upgrade head" in answer.json()["detail"]
    assert http.get("/healthz").status_code == 200
