"""Garbage collection on PostgreSQL keeps an object that an uncommitted row names."""

import pytest

from app.db import leases
from app.jobs import runs
from app.jobs.tables import JobRow
from app.lifecycle import garbage
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.lifecycle.test_garbage import *  # noqa: F403 - on PostgreSQL
from tests.unit.lifecycle.test_garbage import age


@pytest.fixture(autouse=True)
def _settings_of_the_command(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNC_DATABASE_URL", zoo.settings.database_url)


def test_an_object_that_an_uncommitted_row_names_stays(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        seeds.queued(session, zoo)
    with zoo.database.write() as session:
        lease = runs.claim(session, "worker")
        assert lease is not None
    with zoo.database.write() as session:
        assert leases.held(session, JobRow, lease).state == "running"
        module = seeds.publish(session, zoo, lease)
        keys = [bundle.key for bundle in module.bundles]
        for key in keys:
            age(zoo, key, 7200)
        assert sorted(garbage.find(zoo).objects) == sorted(keys)  # its rows are not visible yet
        assert garbage.collect(zoo) == 0
    assert garbage.collect(zoo) == 0
    assert all(zoo.store.size(key) for key in keys)


def test_an_object_whose_row_was_taken_back_goes(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        upload = seeds.upload(session, zoo, b"abcd")
        session.flush()
        age(zoo, str(upload.key), 7200)
        assert garbage.collect(zoo) == 0
        session.rollback()
    assert garbage.collect(zoo) == 1
