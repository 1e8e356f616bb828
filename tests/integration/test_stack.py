"""The whole service on PostgreSQL and S3: the same journey, and its messages while one of them is down."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.demo import Material, png
from pnc_client import Client
from tests.integration.conftest import QUICK, Up, fill, start_service, stop_service, wait_until
from tests.services import S3, Postgres
from tests.services.fixtures import Bucket, new_bucket


@pytest.fixture(scope="module")
def bucket(s3_service: S3) -> Iterator[Bucket]:
    """An empty bucket for this file."""
    with new_bucket(s3_service) as bucket:
        yield bucket


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, postgres_service: Postgres, postgres_template: str, bucket: Bucket
) -> Iterator[Up]:
    """`pnc up` on a new database and a new bucket."""
    database = postgres_service.create("stack", postgres_template)
    directory = tmp_path_factory.mktemp("stack") / "data"
    up = start_service(directory, PNC_DATABASE_URL=database, **bucket.environment)
    yield up
    assert stop_service(up) == 0
    postgres_service.drop("stack")


def test_a_module_is_cloned_published_served_and_downloaded(
    stack: Up, bucket: Bucket, material: Material, files: Path, tmp_path: Path
) -> None:
    dataset = fill(stack.url, material, files)
    with Client(stack.url) as client:
        job = client.jobs.wait(client.jobs.create("digits-low", "digits-high", dataset.id, QUICK).id)
        assert job.state == "succeeded", job.problem
        assert job.module is not None
        digests = {bundle.payload: bundle.digest for bundle in client.modules.get(job.module).bundles}
        for payload, digest in digests.items():
            path = client.modules.download(job.module, payload, tmp_path / payload)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        client.deployments.create("digits", "digits-low")
        client.deployments.attach("digits", job.module)
        answer = client.deployments.predict("digits", png(material.test.images[0]))
        assert {c.name for c in answer.classes} == set("01234789")
        client.deployments.detach("digits", job.module)
    assert bucket.objects() >= {f"{digest[:2]}/{digest[2:]}" for digest in digests.values()}
    assert not any(key.startswith("incoming/") for key in bucket.objects())
    assert not (stack.data_dir / "objects").exists()
    assert not (stack.data_dir / "zoo.db").exists()


def test_a_database_that_is_away_is_waited_for(stack: Up, postgres_service: Postgres) -> None:
    with Client(stack.url, attempts=8) as client:
        client.models.create("before")
        known = [model.name for model in client.models.list()]
        postgres_service.kill()
        answer = httpx.get(f"{stack.url}/v1/models")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert answer.headers["retry-after"].isdigit()
        assert httpx.get(f"{stack.url}/readyz").status_code == 503
        postgres_service.restart()
        assert [model.name for model in client.models.list()] == known
        client.models.create("after")
        wait_until(lambda: httpx.get(f"{stack.url}/readyz").status_code == 200, 20)


def test_a_store_that_is_away_is_waited_for(stack: Up, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights" * 1000)
    with Client(stack.url, attempts=8) as client:
        began = time.monotonic()
        bucket.service.kill()
        try:
            body = {"bytes": 7, "sha256": "0" * 64}
            answer = httpx.post(f"{stack.url}/v1/uploads", json=body, timeout=120)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert time.monotonic() - began < 100
        finally:
            bucket.service.restart()
        assert client.uploads.push(tmp_path / "file").status == "complete"
