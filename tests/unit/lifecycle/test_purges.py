"""What is purged is gone, bytes and all; what is needed stays, and says by whom."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.access import audit, workspaces
from app.access.keys import ANYBODY, SCOPES, Caller
from app.cli import app
from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.db import archive, clock
from app.db.pages import Window
from app.db.tables import Archivable
from app.deployments import desired, reports
from app.deployments import service as deployments
from app.errors import Archived, InUse, Invalid, NotFound, StoreUnavailable
from app.jobs import runs
from app.jobs import service as jobs
from app.lifecycle import garbage, purges, retention
from app.lifecycle.purges import Find
from app.models import service as models
from app.models.tables import ModelRow, VersionRow
from app.modules import service as modules
from app.modules.tables import ModuleRow, SignatureRow
from app.store import uploads
from app.store.objects import key_of
from app.store.tables import UploadRow
from app.zoo import Zoo
from tests.unit import seeds


def version(name: str, number: int = 1) -> Find:
    return lambda session: models.get_version(session, name, number, purged=True)


def one(table: type[Archivable]) -> Find:
    return lambda session: session.scalars(select(table)).one()


def set_archived(zoo: Zoo, find: Find) -> None:
    with zoo.database.write() as session:
        archive.set_archived(session, find(session), archived=True)


def codes(zoo: Zoo, find: Find) -> list[str]:
    """What stands in the way, as planned and as refused."""
    planned = [problem.code for problem in purges.plan(zoo, find).obstacles]
    with pytest.raises(InUse) as refused:
        purges.purge(zoo, find)
    assert [problem.code for problem in refused.value.problems] == planned
    return planned


@pytest.fixture
def filled(zoo: Zoo) -> Zoo:
    """With `high`, of which a module was cloned into `low`."""
    with zoo.database.write() as session:
        seeds.module(session, zoo)
    return zoo


def test_after_a_purge_the_bytes_are_gone_and_nobody_finds_it(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        row = seeds.version(session, zoo, "a")
        models.set_alias(session, "a", "production", 1)
        key, digest, fingerprint = row.key, row.digest, row.fingerprint
    set_archived(zoo, version("a"))
    planned = purges.plan(zoo, version("a"))
    assert (planned.rows, planned.purged_at) == (("a@1",), None)
    assert [(o.digest, o.fate) for o in planned.objects] == [(digest, "stored")]
    assert planned.objects[0].bytes == zoo.store.size(key)
    done = purges.purge(zoo, version("a"))
    assert [(o.digest, o.fate) for o in done.objects] == [(digest, "gone")]
    assert zoo.store.size(key) is None
    assert garbage.find(zoo, object_seconds=0).objects == ()
    with zoo.database.read() as session:
        for ref in ("a@1", "a@production", row.id, "a"):
            with pytest.raises(NotFound):
                models.resolve(session, ref)
        with pytest.raises(NotFound, match="was purged on"):
            models.get_version(session, "a", 1)
        assert models.list_versions(session, "a", Window(), archived=True).data == []
        assert workspaces.stored_bytes(session) == 0
        stone = session.get_one(VersionRow, row.id)
        assert (stone.ref, stone.digest, stone.fingerprint) == ("a@1", digest, fingerprint)
        assert (stone.spec, stone.key, stone.licence) == ({}, "", "")


def test_purging_again_tells_the_same(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        seeds.version(session, zoo, "a")
    set_archived(zoo, version("a"))
    first = purges.purge(zoo, version("a"))
    again = purges.purge(zoo, version("a"))
    assert again.purged_at == first.purged_at
    assert again.objects == first.objects
    assert purges.plan(zoo, version("a")).objects == first.objects


def test_what_is_in_use_must_be_archived_first(filled: Zoo) -> None:
    for find in (version("low"), one(DatasetRow), one(ModuleRow)):
        assert "not_archived" in codes(filled, find)
    assert codes(filled, lambda session: models.get(session, "low"))[0] == "not_archived"


def test_what_a_module_proves_stays_until_the_module_is_gone(filled: Zoo) -> None:
    for name in ("low", "high"):
        set_archived(filled, version(name))
        assert codes(filled, version(name)) == ["needed_by_module"]
    set_archived(filled, one(ModuleRow))
    with filled.database.write() as session:
        module = session.scalars(select(ModuleRow)).one()
        session.add(SignatureRow(module_id=module.id, key="ed25519:0", text="{}"))
        keys = [bundle.key for bundle in module.bundles]
    done = purges.purge(filled, one(ModuleRow))
    assert {o.fate for o in done.objects} == {"gone"}
    assert [filled.store.size(key) for key in keys] == [None, None]
    for name in ("low", "high"):
        purges.purge(filled, version(name))
    with filled.database.read() as session:
        assert session.scalars(select(SignatureRow)).all() == []
        (job,) = jobs.list_jobs(session, Window()).data
        assert (job.target_version.ref, job.state) == ("low@1", "succeeded")
        assert job.module is not None
        with pytest.raises(NotFound):
            modules.bundle(session, job.module.id, "full")


def test_what_a_job_works_with_stays(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        job = seeds.queued(session, zoo).id
    for find in (version("low"), version("high"), one(DatasetRow)):
        set_archived(zoo, find)
        assert codes(zoo, find) == ["needed_by_job"]
    with zoo.database.write() as session:
        assert runs.claim(session, "worker") is not None
    for find in (version("low"), version("high"), one(DatasetRow)):
        assert codes(zoo, find) == ["needed_by_job"]
    with zoo.database.write() as session:
        jobs.cancel(session, job)
    assert codes(zoo, one(DatasetRow)) == ["needed_by_job"]  # until its worker has heard


def test_a_dataset_goes_when_no_job_needs_it_and_the_job_cannot_be_tried_again(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        job = seeds.queued(session, zoo).id
        jobs.cancel(session, job)
    set_archived(zoo, one(DatasetRow))
    assert [o.fate for o in purges.purge(zoo, one(DatasetRow)).objects] == ["gone"]
    with zoo.database.write() as session, pytest.raises(Invalid) as refused:
        jobs.retry(session, job)
    assert [(p.pointer, p.code) for p in refused.value.problems] == [("/dataset", "not_found")]
    assert "purged" in str(refused.value)


def test_what_is_served_stays_and_no_way_back_leads_to_what_is_gone(filled: Zoo) -> None:
    with filled.database.write() as session:
        module = session.scalars(select(ModuleRow)).one().id
        deployments.put(session, "digits", "low")
        deployments.attach(session, "digits", module)
    set_archived(filled, one(ModuleRow))
    assert codes(filled, one(ModuleRow)) == ["served"]
    with filled.database.write() as session:
        deployments.detach(session, "digits", module)
    purges.purge(filled, one(ModuleRow))
    set_archived(filled, version("low"))
    assert codes(filled, version("low")) == ["served"]
    with filled.database.write() as session:
        with pytest.raises(NotFound, match="purged"):
            deployments.rollback(session, "digits", 2)
        reports.revert(session, "digits", 3)  # generation 2 held the module
        (wanted,) = desired.deployments(session)
        assert (wanted.generation, wanted.modules) == (4, ())


def test_a_model_goes_with_its_versions_and_its_name_can_begin_anew(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        keys = [seeds.version(session, zoo, "a").key]
        for value in (5, 6):
            up = seeds.upload(session, zoo, seeds.tensors(value))
            keys.append(models.add_version(session, "a", upload_id=up.id, spec=seeds.network()).key)
        models.change(session, "a", archived=True, description="secret")
    assert {o.fate for o in purges.plan(zoo, one(ModelRow)).objects} == {"stored"}
    done = purges.purge(zoo, one(ModelRow))
    assert done.rows == ("a@1", "a@2", "a@3", "a")
    assert [zoo.store.size(key) for key in keys] == [None] * 3
    with zoo.database.write() as session:
        with pytest.raises(NotFound):
            models.get(session, "a")
        assert models.list_models(session, Window(), archived=True).data == []
        assert session.scalars(select(ModelRow.description)).one() == ""
        assert models.create(session, name="a").last_version == 3
        up = seeds.upload(session, zoo, seeds.tensors(5))
        assert models.add_version(session, "a", upload_id=up.id, spec=seeds.network()).ref == "a@4"
        with pytest.raises(NotFound):
            models.get_version(session, "a", 2)


def test_bytes_that_something_else_has_stay(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        key = seeds.version(session, zoo, "a", value=7).key
        other = seeds.version(session, zoo, "b", value=7).id
    set_archived(zoo, version("a"))
    for found in (purges.plan(zoo, version("a")), purges.purge(zoo, version("a"))):
        assert [(o.fate, o.kept_by) for o in found.objects] == [("kept", other)]
    assert zoo.store.size(key) is not None


def test_an_upload_that_came_later_keeps_its_bytes(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        row = seeds.version(session, zoo, "a", value=7)
        row.created_at = clock.now(session) - timedelta(seconds=1)
        for old in session.scalars(select(UploadRow)):
            old.completed_at = clock.now(session) - timedelta(seconds=2)
        later = seeds.upload(session, zoo, seeds.tensors(7)).id
    set_archived(zoo, version("a"))
    assert [o.kept_by for o in purges.purge(zoo, version("a")).objects] == [later]
    with zoo.database.read() as session:
        assert [u.id for u in session.scalars(select(UploadRow))] == [later]
        assert uploads.completed(session, later)[1] == key_of(session.get_one(UploadRow, later).digest)


def test_nobody_learns_that_another_workspace_has_the_same_bytes(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        for name in ("red", "blue"):
            workspaces.create(session, name)
    red, blue = (zoo.seen_by(Caller(name, frozenset(SCOPES))) for name in ("red", "blue"))
    for seen in (red, blue):
        with seen.database.write() as session:
            key = seeds.version(session, seen, "a", value=7).key
    set_archived(red, version("a"))
    assert [o.fate for o in purges.plan(red, version("a")).objects] == ["stored"]
    assert [(o.fate, o.kept_by) for o in purges.purge(red, version("a")).objects] == [("gone", None)]
    assert zoo.store.size(key) is not None
    set_archived(blue, version("a"))
    assert [o.fate for o in purges.purge(blue, version("a")).objects] == ["gone"]
    assert zoo.store.size(key) is None


def test_what_the_store_does_not_give_up_is_left_to_the_sweep(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    with zoo.database.write() as session:
        key = seeds.version(session, zoo, "a").key
    set_archived(zoo, version("a"))

    def away(_key: str) -> None:
        raise StoreUnavailable("expected the store, got none")

    with monkeypatch.context() as patch:
        patch.setattr(type(zoo.store), "delete", lambda _self, key: away(key))
        assert [o.fate for o in purges.purge(zoo, version("a")).objects] == ["left"]
    assert zoo.store.size(key) is not None
    assert garbage.collect(zoo, object_seconds=0) == 1
    assert zoo.store.size(key) is None


def race(zoo: Zoo, first: Callable[[Session], Any], find: Find) -> list[str]:
    """Let a purge begin while another transaction has done something and not ended; what became of the purge."""
    outcome: list[str] = []

    def purging() -> None:
        try:
            purges.purge(zoo, find)
            outcome.append("purged")
        except InUse as error:
            outcome.extend(problem.code for problem in error.problems)

    thread = threading.Thread(target=purging)
    with zoo.database.write() as session:
        first(session)
        session.flush()
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "the purge did not wait for what came first"
    thread.join(20)
    return outcome


def test_a_purge_waits_for_whoever_attaches_submits_or_claims_and_then_sees_it(filled: Zoo) -> None:
    with filled.database.write() as session:
        module = session.scalars(select(ModuleRow)).one()
        module_id, data = module.id, seeds.job_of(session, module).dataset_id
        deployments.put(session, "digits", "low")
    again = seeds.another_request(data)

    def archived_after(work: Callable[[Session], Any], find: Find) -> Callable[[Session], Any]:
        """The purge would be allowed, but for what is being done: it was put away before the transaction ends."""

        def both(session: Session) -> None:
            work(session)
            archive.set_archived(session, find(session), archived=True)

        return both

    attach = archived_after(lambda session: deployments.attach(session, "digits", module_id), one(ModuleRow))
    assert race(filled, attach, one(ModuleRow)) == ["served"]
    submit = archived_after(lambda session: jobs.submit(session, again), one(DatasetRow))
    assert race(filled, submit, one(DatasetRow)) == ["needed_by_job"]
    claim = archived_after(lambda session: runs.claim(session, "worker"), version("high"))
    assert "needed_by_job" in race(filled, claim, version("high"))


def test_who_attaches_or_submits_after_a_purge_has_begun_is_refused(filled: Zoo) -> None:
    with filled.database.write() as session:
        module = session.scalars(select(ModuleRow)).one()
        module_id, data = module.id, seeds.job_of(session, module).dataset_id
        deployments.put(session, "digits", "low")
    for find in (one(ModuleRow), one(DatasetRow)):
        set_archived(filled, find)
    ready = threading.Barrier(3)
    outcomes: list[str] = []

    def doing(work: Callable[[Session], Any]) -> None:
        ready.wait(10)
        for _ in range(20):
            with suppress(Archived, Invalid, NotFound), filled.database.write() as session:
                work(session)
                outcomes.append("done")

    again = seeds.another_request(data)
    works = (
        lambda session: deployments.attach(session, "digits", module_id),
        lambda session: jobs.submit(session, again),
    )
    threads = [threading.Thread(target=doing, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    ready.wait(10)
    for find in (one(ModuleRow), one(DatasetRow)):
        purges.purge(filled, find)
    for thread in threads:
        thread.join(20)
    assert outcomes == []
    with filled.database.read() as session:
        assert deployments.revision(session, deployments.get(session, "digits")).attachments == []


def _aged(zoo: Zoo, find: Find, days: int) -> None:
    with zoo.database.write() as session:
        find(session).archived_at = clock.now(session) - timedelta(days=days)


def test_retention_purges_what_was_archived_long_enough_and_notes_it(filled: Zoo) -> None:
    for find in (version("low"), one(DatasetRow), one(ModuleRow)):
        _aged(filled, find, 8)
    _aged(filled, version("high"), 6)
    assert retention.find(filled) == []  # off by default
    with filled.database.write() as session:
        workspaces.own(session).retention_days = 7
    found = retention.find(filled)
    assert [(due.kind, bool(due.obstacles)) for due in found] == [
        ("module", False),
        ("dataset", False),
        ("version", True),  # the module still needs it; once that is gone, it can go
    ]
    assert [due.kind for due in retention.purge(filled, found)] == ["module", "dataset", "version"]
    with filled.seen_by(ANYBODY).database.read() as session:
        noted = [(row.who, row.action, row.outcome) for row in audit.list_entries(session, Window()).data]
        assert sorted(noted) == [("retention", f"purge_{kind}", "purged") for kind in ("dataset", "module", "version")]
        assert models.get_version(session, "high", 1).archived_at is not None
        with pytest.raises(NotFound):
            datasets.get(session, session.scalars(select(DatasetRow.id)).one())


def test_what_is_restored_in_time_stays(filled: Zoo) -> None:
    _aged(filled, one(ModuleRow), 8)
    with filled.database.write() as session:
        workspaces.own(session).retention_days = 7
    due = retention.find(filled)
    with filled.database.write() as session:
        modules.set_archived(session, session.scalars(select(ModuleRow.id)).one(), archived=False)
    assert retention.purge(filled, due) == []


def test_the_command_tells_what_is_due_and_purges_it(filled: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNC_DATABASE_URL", filled.settings.database_url)
    for find in (one(ModuleRow), version("low")):
        _aged(filled, find, 8)
    with filled.database.write() as session:
        workspaces.own(session).retention_days = 7
    where = ["--data-dir", str(filled.settings.data_dir)]
    told = CliRunner().invoke(app, ["gc", "--dry-run", *where]).output.splitlines()
    assert [line.split()[0] for line in told[:2]] == ["module", "version"]
    assert "stays: expected no module that needs low@1" in told[1]
    assert told[2] == "1 of 2 archived would be purged"
    done = CliRunner().invoke(app, ["gc", *where]).output.splitlines()
    assert "2 of 2 archived purged" in done
