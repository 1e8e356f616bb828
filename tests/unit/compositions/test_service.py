"""Rows of compositions: which one a set of modules has, and what a worker may write."""

import pytest
from sqlalchemy.orm import Session

from app.compositions import runs
from app.compositions import service as compositions
from app.compositions.tables import CompositionRow
from app.datasets import service as datasets
from app.db.pages import Window
from app.deployments import service as deployments
from app.errors import Conflict, LeaseLost, NotFound
from app.modules import service as modules
from app.store.objects import Stored
from app.zoo import Zoo
from tests.unit import seeds


@pytest.fixture
def module(zoo: Zoo) -> str:
    with zoo.database.write() as session:
        return seeds.module(session, zoo).id


def _submit(session: Session, module: str) -> CompositionRow:
    (data,) = datasets.list_datasets(session, Window(1, None)).data
    return compositions.submit(session, target="low", module_ids=[module], dataset_id=data.id, head="affine")


def _ready(zoo: Zoo, module: str, content: bytes) -> str:
    stored = zoo.store.put([content])
    with zoo.database.write() as session:
        row = _submit(session, module)
        lease = runs.claim(session, "worker")
        assert lease is not None
        runs.succeed(session, lease, stored, {"verdict": None})
    return row.id


def test_the_newest_ready_composition_of_exactly_the_set_is_found(zoo: Zoo, module: str) -> None:
    with zoo.database.write() as session:
        version = modules.get(session, module).target_version_id
        assert compositions.newest(session, version, [module]) is None
    first = _ready(zoo, module, b"first")
    second = _ready(zoo, module, b"second")
    with zoo.database.write() as session:
        _submit(session, module)  # it waits, and does not count
        found = compositions.newest(session, version, [module])
        assert found is not None
        assert found.id == second
        assert compositions.newest(session, version, [module, "mod_0"]) is None
        assert compositions.newest(session, version, []) is None
        compositions.delete(session, second)
        found = compositions.newest(session, version, [module])
        assert found is not None
        assert found.id == first
        with pytest.raises(NotFound):
            compositions.get(session, second)


def test_a_generation_keeps_its_composition(zoo: Zoo, module: str) -> None:
    row = _ready(zoo, module, b"numbers")
    with zoo.database.write() as session:
        deployments.put(session, "digits", "low")
        changed = deployments.attach(session, "digits", module).deployment
        assert deployments.revision(session, changed).composition_id == row
        with pytest.raises(Conflict, match="digits"):
            deployments.check_unused(session, compositions.get(session, row))
        deployments.delete(session, "digits")
        deployments.check_unused(session, compositions.get(session, row))
        compositions.delete(session, row)
        assert session.get_one(CompositionRow, row).key is None


def test_only_the_holder_of_the_lease_writes(zoo: Zoo, module: str) -> None:
    with zoo.database.write() as session:
        row = _submit(session, module)
        old = runs.claim(session, "one")
        assert old is not None
        assert runs.claim(session, "two") is None
        runs.postpone(session, old, "the store does not answer")
        assert runs.claim(session, "two") is None  # it rests for some seconds
        row.not_before = None
        session.flush()
        new = runs.claim(session, "two")
        assert new is not None
    for write in (
        lambda session: runs.record(session, old, progress=0.5, message="half"),
        lambda session: runs.succeed(session, old, Stored("k", "d", 1), {}),
        lambda session: runs.fail(session, old, {"code": "c", "detail": "d"}),
        lambda session: runs.heartbeat(session, old),
    ):
        with zoo.database.write() as session, pytest.raises(LeaseLost):
            write(session)
    with zoo.database.write() as session:
        assert runs.heartbeat(session, new) is None
        runs.fail(session, new, {"code": "invalid_data", "detail": "no images"})
        found = compositions.get(session, row.id)
        assert (found.state, found.message) == ("failed", "no images")
