"""A full disk or a missing store is reported at once in one line, and the service recovers after the repair."""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pytest
from tenacity import stop_after_attempt

from app.errors import NoSpace
from app.jobs import runs
from app.jobs import service as jobs
from tests.integration.conftest import Up, start_service, stop_service, wait_until
from tests.services.disks import filled, small_disk
from tests.unit import seeds
from tests.unit.workers.test_runner import BUNDLE
from workers import exit_codes, runner

MEGABYTE = 1024 * 1024
READY_SECONDS = 30


@dataclass(frozen=True)
class Small:
    """A service with all its files on a disk of 8 MB."""

    up: Up
    disk: Path
    log: Path
    """Standard error of the service's processes."""

    def said(self) -> str:
        """Lines since the last call."""
        text = self.log.read_text()
        os.truncate(self.log, 0)
        return text

    def staged(self) -> list[str]:
        return [p.name for p in (self.up.data_dir / "uploads").iterdir() if p.name.startswith("up_")]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    folder = tmp_path_factory.mktemp("small")
    with small_disk(folder / "disk", 8) as disk:
        with (folder / "log").open("a") as log, _stderr_to(log):
            service = start_service(disk / "data")
        yield Small(service, disk, folder / "log")
        assert stop_service(service) == 0


@contextmanager
def _stderr_to(log: IO[str]) -> Iterator[None]:
    """Redirect the standard error of processes that start within the block to this file."""
    before = os.dup(2)
    os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@pytest.fixture
def http(small: Small) -> Iterator[httpx.Client]:
    small.said()
    with httpx.Client(base_url=small.up.url, timeout=60, trust_env=False) as client:
        yield client


def announce(http: httpx.Client, content: bytes) -> str:
    body = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return str(http.post("/v1/uploads", json=body).raise_for_status().headers["location"])


def ready(http: httpx.Client) -> bool:
    return http.get("/readyz").status_code == 200


@pytest.mark.always
def test_an_upload_that_does_not_fit_is_507_and_leaves_nothing(small: Small, http: httpx.Client) -> None:
    large, little = bytes(12 * MEGABYTE), bytes(1000)
    where = announce(http, large)
    answer = http.put(f"{where}/content", content=large)
    assert (answer.status_code, answer.json()["code"]) == (507, "insufficient_storage")
    assert re.search(r"expected room .*No space left on device", answer.json()["detail"])
    assert small.staged() == []
    assert http.get(where).json()["received"] == 0
    again = announce(http, little)
    assert http.put(f"{again}/content", content=little).status_code == 204
    assert http.post(f"{again}/complete").status_code == 200
    assert "Traceback" not in small.said()


def test_an_upload_can_be_deleted_with_its_bytes(small: Small, http: httpx.Client) -> None:
    content = bytes(MEGABYTE)
    before = small.up.objects()
    half, whole = announce(http, content), announce(http, content)
    assert http.put(f"{half}/content", content=content[:1000]).status_code == 204
    assert http.put(f"{whole}/content", content=content).status_code == 204
    assert http.post(f"{whole}/complete").status_code == 200
    assert len(small.up.objects() - before) == 1
    for where in (half, whole):
        assert http.delete(where).status_code == 204
        assert http.get(where).status_code == http.delete(where).status_code == 404
    assert small.staged() == []
    assert small.up.objects() == before


def test_a_full_disk_is_told_of_with_its_reason_and_is_over_when_there_is_room(
    small: Small, http: httpx.Client
) -> None:
    assert ready(http)
    small.said()
    with filled(small.disk):
        wait_until(lambda: not ready(http), READY_SECONDS)
        assert "No space left on device" in http.get("/readyz").json()["detail"]
        began, answers = time.monotonic(), []
        while time.monotonic() < began + 8:  # long enough for every loop of the worker to fail
            answers.append(http.post("/v1/models", json={"name": f"m{len(answers)}", "description": "x" * 10_000}))
            time.sleep(0.1)
        refused = [answer for answer in answers if answer.status_code != 201]
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(507, "insufficient_storage")}
        assert "disk is full" in refused[0].json()["detail"]
        assert http.get("/healthz").status_code == http.get("/v1/models").status_code == 200
    said = small.said()
    assert "Traceback" not in said
    assert "full" in said
    assert len(said.splitlines()) < 20, said
    wait_until(lambda: ready(http), READY_SECONDS)
    assert http.post("/v1/models", json={"name": "after"}).status_code == 201


def test_a_store_that_was_moved_away_is_not_ready_and_takes_nothing(small: Small, http: httpx.Client) -> None:
    content = b"some bytes"
    where = announce(http, content)
    assert http.put(f"{where}/content", content=content).status_code == 204
    objects, elsewhere = small.up.data_dir / "objects", small.up.data_dir / "elsewhere"
    objects.rename(elsewhere)
    wait_until(lambda: not ready(http), READY_SECONDS)
    assert "PNC_STORE_URL" in http.get("/readyz").json()["detail"]
    answer = http.post(f"{where}/complete")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert "PNC_STORE_URL" in answer.json()["detail"]
    elsewhere.rename(objects)
    wait_until(lambda: ready(http), READY_SECONDS)
    assert http.post(f"{where}/complete").status_code == 200
    assert "Traceback" not in small.said()


def test_a_job_whose_store_is_full_leaves_no_half_object_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner._put_all.retry, "stop", stop_after_attempt(2))  # type: ignore[attr-defined]
    with small_disk(tmp_path / "disk", 2) as disk:
        zoo = seeds.new_zoo(tmp_path / "data", store_url=str(disk / "objects"))
        with zoo.database.write() as session:
            seeds.queued(session, zoo)
            lease = runs.claim(session, "worker")
        assert lease is not None
        before = set(zoo.store.older_than(-10))
        with filled(disk), pytest.raises(NoSpace, match=r"PNC_STORE_URL: expected room .*No space left") as full:
            runner.publish(zoo, lease, BUNDLE)
        assert runner._exit_code(full.value) == exit_codes.NO_SPACE
        assert set(zoo.store.older_than(-10)) == before
        assert list(zoo.store.unfinished(-10)) == []
        assert list(zoo.staging.iterdir()) == []
        runner.publish(zoo, lease, BUNDLE)
        with zoo.database.read() as session:
            assert jobs.get(session, lease.id).state == "succeeded"
        zoo.close()
