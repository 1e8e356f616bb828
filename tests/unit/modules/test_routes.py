import base64
import hashlib

import httpx
import pytest

from app.modules.tables import ModuleRow
from app.zoo import Zoo
from tests.unit import seeds


@pytest.fixture
def module(zoo: Zoo) -> ModuleRow:
    """A published module."""
    with zoo.database.write() as session:
        return seeds.module(session, zoo)


@pytest.fixture
def url(module: ModuleRow) -> str:
    """Where its full bundle is."""
    return f"/v1/modules/{module.id}/bundle"


def test_a_module_says_where_it_came_from(http: httpx.Client, module: ModuleRow) -> None:
    answer = http.get(f"/v1/modules/{module.id}").json()
    assert (answer["target"], answer["source"], answer["job"]) == ("low@1", "high@1", module.job_id)
    assert [b["payload"] for b in answer["bundles"]] == ["full", "thin"]
    assert http.get("/v1/modules").json()["data"] == [answer]
    assert http.get("/v1/modules?target_fingerprint=other").json()["data"] == []
    assert http.get(f"/v1/modules/{module.id}/manifest").json()["manifest"] == module.manifest


def test_what_a_module_is_worth_comes_with_its_manifest(http: httpx.Client, zoo: Zoo, module: ModuleRow) -> None:
    path = f"/v1/modules/{module.id}/manifest"
    assert http.get(path).json()["evidence"] is None
    evidence = {"confusion": {"classes": ["0", "7"], "before": [[1, 0], [1, 0]], "after": [[1, 0], [0, 1]]}}
    with zoo.database.write() as session:
        session.get_one(ModuleRow, module.id).evidence = evidence
    assert http.get(path).json()["evidence"] == evidence


@pytest.mark.parametrize("payload", ["thin", "full"])
def test_a_bundle_comes_whole_with_its_digest(http: httpx.Client, module: ModuleRow, url: str, payload: str) -> None:
    answer = http.get(url, params={"payload": payload})
    digest = hashlib.sha256(answer.content)
    assert answer.content.startswith(payload.encode())
    assert answer.headers["etag"] == f'"{digest.hexdigest()}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-disposition"] == f'attachment; filename="{module.id}.{payload}.safetensors"'


def test_a_bundle_that_is_known_is_not_sent(http: httpx.Client, url: str) -> None:
    etag = http.get(url).headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        answer = http.get(url, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
    assert http.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [("0-9", 0, 10), ("10-", 10, None), ("-5", -5, None), ("5-5", 5, 6), ("0-99999", 0, None)],
)
def test_one_range_is_cut_out(http: httpx.Client, url: str, wanted: str, start: int, stop: int | None) -> None:
    whole = http.get(url).content
    answer = http.get(url, headers={"Range": f"bytes={wanted}"})
    assert (answer.status_code, answer.content) == (206, whole[start:stop])
    first = start % len(whole)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(whole)}"


def test_a_range_outside_is_refused(http: httpx.Client, url: str) -> None:
    size = len(http.get(url).content)
    for wanted in (f"{size}-", "9999-10000", "-0"):
        answer = http.get(url, headers={"Range": f"bytes={wanted}"})
        assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{size}"


def test_what_is_not_one_range_of_bytes_gets_the_whole(http: httpx.Client, url: str) -> None:
    whole = http.get(url).content
    for wanted in ("bytes=0-1,3-4", "bytes=-", "lines=0-1", "bytes=a-b", "bytes=5-2"):
        assert http.get(url, headers={"Range": wanted}).content == whole
    stale = {"Range": "bytes=0-1", "If-Range": '"other"'}
    assert http.get(url, headers=stale).content == whole


def test_head_tells_without_sending(http: httpx.Client, url: str) -> None:
    answer, whole = http.head(url), http.get(url)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(whole.content))


def test_a_lost_object_is_a_problem_and_not_a_broken_stream(
    http: httpx.Client, zoo: Zoo, module: ModuleRow, url: str
) -> None:
    zoo.store.delete(next(b.key for b in module.bundles if b.payload == "full"))
    answer = http.get(url)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_the_unit_of_a_range_may_be_written_in_capitals(http: httpx.Client, url: str) -> None:
    answer = http.get(url, headers={"Range": "Bytes=0-3"})
    assert (answer.status_code, answer.content) == (206, b"full")
