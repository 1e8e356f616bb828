"""How many statements lists and claims take: a few, however many rows there are."""

import httpx
import pytest

from app.jobs import runs
from app.zoo import Zoo
from tests.unit.crowds import crowd
from tests.unit.statements import counting


def _reads(sent: list[str]) -> list[str]:
    return [statement for statement in sent if statement.startswith("SELECT")]


@pytest.fixture(autouse=True)
def crowded(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        crowd(session, models=60, jobs=120)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/v1/models", 3),
        ("/v1/models/net-000003/versions", 2),
        ("/v1/models/net-000003/versions/1", 2),
        ("/v1/cloning-jobs", 1),
        ("/v1/cloning-jobs?state=queued", 1),
        ("/v1/cloning-jobs/job_000000", 1),
        ("/v1/cloning-jobs/job_000000/events", 2),
        ("/v1/modules", 2),
        ("/v1/modules/mod_000000", 2),
    ],
)
def test_an_answer_takes_so_many_statements(http: httpx.Client, zoo: Zoo, path: str, number: int) -> None:
    for page in (path, f"{path}{'&' if '?' in path else '?'}limit=100") if "00" not in path else (path,):
        with counting(zoo) as sent:
            answer = http.get(page)
        assert answer.status_code == 200, answer.text
        assert len(_reads(sent)) == number, sent


def test_jobs_and_modules_say_what_their_versions_are_called(http: httpx.Client) -> None:
    for path in ("/v1/cloning-jobs", "/v1/modules"):
        found = http.get(path).json()["data"]
        assert len(found) > 10
        assert {row["target"].partition("-")[0] for row in found} == {"net"}
        assert all(http.get(f"/v1/models/{row['target'].partition('@')[0]}").status_code == 200 for row in found[:3])
        assert [http.get(f"{path}/{row['id']}").json() for row in found[:5]] == found[:5]


def test_a_claim_takes_few_statements(zoo: Zoo) -> None:
    with counting(zoo) as sent, zoo.database.write() as session:
        assert runs.claim(session, "worker") is not None
    assert len([s for s in sent if s.split()[0] in ("SELECT", "INSERT", "UPDATE")]) <= 6, sent
