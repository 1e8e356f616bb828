"""Stores and zoos on a bucket of a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from app.store.s3 import S3Store, open_s3_store
from app.zoo import Zoo
from tests.services.fixtures import Bucket
from tests.unit import seeds

PART = 5 * 1024**2
"""The smallest part of an S3 upload."""


@pytest.fixture
def settings(tmp_path: Path, s3: Bucket, s3_keys: None) -> Settings:
    """Settings with SQLite and an empty bucket; objects over 5 MiB are uploaded in parts."""
    url, endpoint = s3.environment["PNC_STORE_URL"], s3.service.endpoint
    return Settings(data_dir=tmp_path, store_url=f"{url}/zoo", store_endpoint=endpoint, part_bytes=PART)


@pytest.fixture
def store(settings: Settings) -> Iterator[S3Store]:
    """An empty store."""
    store = open_s3_store(settings, settings.data_dir)
    yield store
    store.close()


@pytest.fixture
def zoo(settings: Settings) -> Iterator[Zoo]:
    """An empty zoo."""
    given = settings.model_dump(exclude={"data_dir", "database_url"})
    zoo = seeds.new_zoo(settings.data_dir, **given)
    yield zoo
    zoo.close()
