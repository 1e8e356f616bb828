"""Imports that a worker runs, from a cache of `torch.hub` without network."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.access.keys import SCOPES, Caller
from app.db.leases import Lease
from app.errors import LeaseLost
from app.imports import runs
from app.imports import service as imports
from app.imports.tables import ImportRow
from app.models import service as models
from app.sources.found import digest_of
from app.zoo import Zoo
from tests.unit.sources.test_from_torchvision import fill
from tests.unit.workers.robbing import rob
from workers.networks.importing import run_import

TEXT = "torchvision/squeezenet1_1"
HOSTS = ("files.example",)


def submit(zoo: Zoo, source: str = TEXT, **fields: object) -> Lease:
    with zoo.database.write() as session:
        imports.submit(session, source=source, hosts=HOSTS, **fields)  # type: ignore[arg-type]
    with zoo.database.write() as session:
        lease = runs.claim(session, "worker")
    assert lease is not None
    return lease


def row(zoo: Zoo, lease: Lease) -> ImportRow:
    with zoo.database.read() as session:
        return imports.get(session, lease.id)


def going_on() -> bool:
    return False


def test_a_network_becomes_a_version_with_origin_licence_and_classes(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fill(tmp_path / "torch", monkeypatch, "squeezenet1_1")
    lease = submit(zoo, description="small")
    run_import(zoo, lease, going_on)
    done = row(zoo, lease)
    assert (done.state, done.progress, done.version_ref) == ("succeeded", 1.0, "squeezenet1_1@1")
    with zoo.database.read() as session:
        version = models.get_version(session, "squeezenet1_1", 1)
        assert version.origin is not None
        assert version.origin["source"] == f"{TEXT}@IMAGENET1K_V1"
        assert version.origin["digest"] == digest_of(file)
        assert (version.status, version.model.description) == ("validating", "small")
        assert models.spec_of(version).classes[:2] == ("tench", "goldfish")
        with zoo.store.local(version.key) as path:
            assert digest_of(path) == version.digest


def test_it_belongs_to_the_workspace_of_the_import(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.access import workspaces

    fill(tmp_path / "torch", monkeypatch, "squeezenet1_1")
    with zoo.database.write() as session:
        workspaces.create(session, "red")
    red = zoo.seen_by(Caller("red", frozenset(SCOPES)))
    with red.database.write() as session:
        imports.submit(session, source=TEXT, hosts=HOSTS)
    with zoo.database.write() as session:
        lease = runs.claim(session, "worker")
    assert lease is not None
    run_import(zoo, lease, going_on)
    with red.database.read() as session:
        assert models.get_version(session, "squeezenet1_1", 1).workspace == "red"


def test_a_failure_is_one_line_and_final(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    lease = submit(zoo)
    limited = replace(zoo, settings=zoo.settings.model_copy(update={"import_hosts": ()}))
    run_import(limited, lease, going_on)
    done = row(zoo, lease)
    assert (done.state, done.version_id) == ("failed", None)
    assert done.problem is not None
    assert done.problem["code"] == "source_error"
    assert "expected a host among" in done.problem["detail"]
    assert "\n" not in done.problem["detail"]


def test_a_worker_that_lost_the_import_adds_no_version(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "torch", monkeypatch, "squeezenet1_1")
    lease = submit(zoo)
    with zoo.database.write() as session:
        runs.release(session, lease)
    with pytest.raises(LeaseLost):
        run_import(zoo, lease, going_on)
    with zoo.database.read() as session:
        assert row(zoo, lease).version_id is None
        assert session.query(models.VersionRow).count() == 0


def test_weights_that_are_collected_as_garbage_at_the_worst_moment_are_stored_again(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "torch", monkeypatch, "squeezenet1_1")
    lease = submit(zoo)
    rob(zoo, monkeypatch)
    run_import(zoo, lease, going_on)
    assert row(zoo, lease).state == "succeeded"
    with zoo.database.read() as session:
        version = models.get_version(session, "squeezenet1_1", 1)
    assert zoo.store.size(version.key) == version.bytes


def test_states_of_an_import(zoo: Zoo) -> None:
    lease = submit(zoo)
    with zoo.database.write() as session:
        assert runs.heartbeat(session, lease) is None
        runs.record(session, lease, progress=0.5, message="half")
        assert imports.cancel(session, lease.id).state == "cancelling"
        assert runs.heartbeat(session, lease) == "cancel"
        runs.finish_cancel(session, lease)
    assert (row(zoo, lease).state, row(zoo, lease).progress) == ("cancelled", 0.5)
    again = submit(zoo)
    with zoo.database.write() as session:
        runs.release(session, again)
    assert row(zoo, again).state == "queued"
    for attempt in range(3):
        with zoo.database.write() as session:
            claimed = runs.claim(session, "worker")
            assert claimed is not None
            runs.crashed(session, claimed, "it died", "crashed", most=3)
        assert row(zoo, again).state == ("failed" if attempt == 2 else "queued")
    assert "3 attempts that died" in json.dumps(row(zoo, again).problem)
    with zoo.database.write() as session:
        waiting = imports.submit(session, source=TEXT, hosts=HOSTS)
        assert imports.cancel(session, waiting.id).state == "cancelled"
