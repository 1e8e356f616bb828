"""Fixtures on real services, started once a session and only when a test asks for them.

`PNC_TEST_SERVICES=DIR` takes those that `python -m tests.services up --dir DIR` has started, and leaves them running.
Where a service can be neither found nor installed, the tests that want it fail and say why.
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
    """The session's services."""

    def __init__(self, directory: Path, stack: ExitStack, *, lasting: bool) -> None:
        self._directory, self._stack, self._lasting = directory, stack, lasting

    def get(self, kind: type[Kind]) -> Kind:
        """One of them, started."""
        service = kind(self._directory, lasting=self._lasting).start()
        if not self._lasting:
            self._stack.callback(service.stop)
        return service


@pytest.fixture(scope="session")
def services() -> Iterator[Shared]:
    """Where the session's services come from."""
    given = os.environ.get("PNC_TEST_SERVICES")
    with ExitStack() as stack:
        if given:
            yield Shared(Path(given), stack, lasting=True)
            return
        directory = Path(tempfile.mkdtemp(prefix="pnc-services-"))
        directory.chmod(0o755)  # PostgreSQL runs as a user of its own
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        yield Shared(directory, stack, lasting=False)


@pytest.fixture(scope="session")
def redis_service(services: Shared) -> Redis:
    """A Redis that tests share; who kills one starts it again."""
    return services.get(Redis)


@pytest.fixture
def redis_url(redis_service: Redis) -> str:
    """An empty Redis."""
    redis_service.restart()
    return redis_service.url


@pytest.fixture(scope="session")
def postgres_service(services: Shared) -> Postgres:
    """A PostgreSQL that tests share; who kills one starts it again."""
    return services.get(Postgres)


@pytest.fixture(scope="session")
def postgres_template(postgres_service: Postgres) -> Iterator[str]:
    """Name of a database at the newest revision, to be copied."""
    name = f"template_{uuid.uuid4().hex}"
    database = Database(postgres_service.create(name))
    engine.migrate(database)
    database.close()
    yield name
    postgres_service.drop(name)


@pytest.fixture
def postgres_url(postgres_service: Postgres, postgres_template: str) -> Iterator[str]:
    """A database of the test's own, with the schema and without rows."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_service.create(name, postgres_template)
    postgres_service.drop(name)


@pytest.fixture
def empty_postgres_url(postgres_service: Postgres) -> Iterator[str]:
    """A database of the test's own, without schema."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_service.create(name)
    postgres_service.drop(name)


@dataclass(frozen=True)
class Bucket:
    """A bucket of a test's own."""

    service: S3
    client: S3Client
    name: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point the service's processes at it."""
        return self.service.environment(self.name)

    def objects(self) -> set[str]:
        """What lies in it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {item["Key"] for page in pages for item in page.get("Contents", [])}


@pytest.fixture(scope="session")
def s3_service(services: Shared) -> S3:
    """An S3 server that tests share; who kills one starts it again."""
    return services.get(S3)


@pytest.fixture
def s3(s3_service: S3) -> Iterator[Bucket]:
    """An empty bucket of the test's own."""
    with new_bucket(s3_service) as bucket:
        yield bucket


@contextmanager
def new_bucket(service: S3) -> Iterator[Bucket]:
    """An empty bucket that nobody else has."""
    with closing(service.client()) as client:
        bucket = Bucket(service, client, f"test-{uuid.uuid4().hex}")
        client.create_bucket(Bucket=bucket.name)
        yield bucket


@pytest.fixture
def s3_keys(s3_service: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has the S3 server's keys where boto3 looks for them."""
    for name, value in s3_service.environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
