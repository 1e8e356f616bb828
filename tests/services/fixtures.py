"""Fixtures for real services. Each service is started once per session, when the first test needs it.

With `PNC_TEST_SERVICES=DIR` the tests use the services that `python -m tests.services up --dir DIR` has started, and
leave them running. If a service can be neither found nor installed, its tests fail with the reason.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from mypy_boto3_s3 import S3Client

from app.db import engine
from app.db.engine import Database
from tests.services import S3, Postgres, Redis
from tests.services.service import Service

Kind = TypeVar("Kind", bound=Service)


class Shared:
    """The services of the session."""

    def __init__(self, directory: Path, stack: ExitStack, *, lasting: bool) -> None:
        self._directory, self._stack, self._lasting = directory, stack, lasting

    def get(self, kind: type[Kind]) -> Kind:
        """Start a service and return it."""
        service = kind(self._directory, lasting=self._lasting).start()
        if not self._lasting:
            self._stack.callback(service.stop)
        return service


@pytest.fixture(scope="session")
def services() -> Iterator[Shared]:
    """The services of the session, in a temporary folder or in PNC_TEST_SERVICES."""
    given = os.environ.get("PNC_TEST_SERVICES")
    with ExitStack() as stack:
        if given:
            yield Shared(Path(given), stack, lasting=True)
            return
        directory = Path(tempfile.mkdtemp(prefix="pnc-services-"))
        directory.chmod(0o755)  # PostgreSQL runs as another user
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        yield Shared(directory, stack, lasting=False)


@pytest.fixture(scope="session")
def redis_service(services: Shared) -> Redis:
    """A Redis that all tests share; a test that kills it must restart it."""
    return services.get(Redis)


@pytest.fixture
def redis_url(redis_service: Redis) -> str:
    """URL of the shared Redis, emptied."""
    redis_service.restart()
    return redis_service.url


@pytest.fixture(scope="session")
def postgres_service(services: Shared) -> Postgres:
    """A PostgreSQL that all tests share; a test that kills it must restart it."""
    return services.get(Postgres)


@pytest.fixture(scope="session")
def postgres_template(postgres_service: Postgres) -> Iterator[str]:
    """Name of a template database at the newest revision."""
    name = f"template_{uuid.uuid4().hex}"
    database = Database(postgres_service.create(name))
    engine.migrate(database)
    database.close()
    yield name
    postgres_service.drop(name)


@pytest.fixture
def postgres_url(postgres_service: Postgres, postgres_template: str) -> Iterator[str]:
    """URL of a new database for one test, with the schema and without rows."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_service.create(name, postgres_template)
    postgres_service.drop(name)


@pytest.fixture
def empty_postgres_url(postgres_service: Postgres) -> Iterator[str]:
    """URL of a new database for one test, without schema."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_service.create(name)
    postgres_service.drop(name)


@dataclass(frozen=True)
class Bucket:
    """A bucket for one test."""

    service: S3
    client: S3Client
    name: str

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with the bucket's address and keys."""
        return self.service.environment(self.name)

    def objects(self) -> set[str]:
        """Keys of all objects in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {item["Key"] for page in pages for item in page.get("Contents", [])}


@pytest.fixture(scope="session")
def s3_service(services: Shared) -> S3:
    """An S3 server that all tests share; a test that kills it must restart it."""
    return services.get(S3)


@pytest.fixture
def s3(s3_service: S3) -> Iterator[Bucket]:
    """A new empty bucket for one test."""
    with new_bucket(s3_service) as bucket:
        yield bucket


@contextmanager
def new_bucket(service: S3) -> Iterator[Bucket]:
    """Create an empty bucket with a unique name."""
    with closing(service.client()) as client:
        bucket = Bucket(service, client, f"test-{uuid.uuid4().hex}")
        client.create_bucket(Bucket=bucket.name)
        yield bucket


@pytest.fixture
def s3_keys(s3_service: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the S3 server's keys in the environment variables that boto3 reads."""
    for name, value in s3_service.environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
