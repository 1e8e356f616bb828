"""The service's frequent statements never read a whole table of 100,000 rows."""

import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.access import audit, keys, workspaces
from app.access.keys import ANYBODY
from app.access.tables import WorkspaceRow
from app.api import metrics
from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.db import clock, idempotency
from app.db.pages import Window, encode
from app.deployments import desired, reports
from app.deployments import service as deployments
from app.jobs import events, notifier, recovery, runs, steps
from app.jobs import service as jobs
from app.jobs.tables import JobRow
from app.lifecycle import blockers, garbage, purges, retention
from app.models import service as models
from app.models import validation
from app.models.tables import VersionRow
from app.modules import service as modules
from app.modules.tables import ModuleRow
from app.store import uploads
from app.store.objects import key_of
from app.store.tables import UploadRow
from app.webhooks import outbox
from app.webhooks import service as webhooks
from app.webhooks.outbox import Reception, RetryPolicy
from app.webhooks.tables import DeliveryRow, WebhookRow
from app.zoo import Zoo
from tests.integration.postgres import many
from tests.services import Postgres
from tests.unit import seeds

Act = Callable[[Zoo], object]
PATIENCE = RetryPolicy(timedelta(seconds=5), timedelta(days=3))
N = f"{many.MANY // 2:032x}"
"""The number in the ids of a row in the middle."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, postgres_service: Postgres) -> Iterator[Zoo]:
    """A zoo after a long time of use; tests roll back their changes."""
    name = f"many_{uuid.uuid4().hex}"
    zoo = seeds.new_zoo(Path(tmp_path_factory.mktemp("many")), database_url=postgres_service.create(name))
    try:
        many.fill(zoo)
        yield zoo
    finally:
        zoo.close()
        postgres_service.drop(name)


class _Undone(Exception):
    """Raised to roll back a transaction."""


def reading(work: Callable[[Session], object]) -> Act:
    def act(zoo: Zoo) -> None:
        with zoo.seen_by(ANYBODY).database.read() as session:
            work(session)

    return act


def writing(work: Callable[[Session], object]) -> Act:
    """A write transaction as in a worker, rolled back at the end."""

    def act(zoo: Zoo) -> None:
        def undone() -> None:
            with zoo.database.write() as session:
                work(session)
                session.flush()
                raise _Undone

        with pytest.raises(_Undone):
            undone()

    return act


def _queued(session: Session) -> None:
    job = session.get_one(JobRow, f"job_{N}")
    job.state, job.device, job.size = "queued", "any", "small"
    session.flush()


def _job(session: Session) -> None:
    """All statements of a worker for one job."""
    _queued(session)
    lease = runs.claim(session, "w")
    assert lease is not None
    runs.heartbeat(session, lease)
    runs.record(session, lease, stage="s", message="m", progress=0.5)
    steps.share(session, lease, ["a", "b"])
    assert steps.claim_own(session, lease) is not None
    assert steps.claim_shared(session, "other", 20) is not None
    steps.find(session, lease.id, ["a", "b"])
    recovery.crashed(session, lease, "died", "out_of_memory")


def _version(session: Session) -> None:
    session.get_one(VersionRow, f"ver_{N}").status = "validating"
    session.flush()
    lease = validation.claim_validation(session, "w")
    assert lease is not None
    validation.heartbeat_validation(session, lease)


def _sweep(session: Session) -> None:
    validation.sweep_validations(session)
    steps.sweep(session)
    outbox.sweep(session)
    recovery.sweep(session)
    notifier.announce_again(session, 60)


def _deliver(session: Session) -> None:
    hook = session.get_one(WebhookRow, f"whk_{1:032x}")
    outbox.post(session, "default", "job.failed", lambda: {"job": "j"})
    session.flush()
    assert outbox.is_due(session)
    lease = outbox._claimed(session, "w")
    assert lease is not None
    outbox.settle(session, lease[0], Reception(500, "", "no"), PATIENCE)
    outbox.list_deliveries(session, hook.id, Window(), state="failed")
    webhooks.delete(session, hook.id)


def _collect(session: Session) -> None:
    idempotency.sweep_keys(session)
    outbox.forget_old(session)
    audit.sweep(session)
    events.forget_old(session, 30, 100)
    session.query(UploadRow.id).where(garbage._abandoned(session, garbage.UPLOAD_SECONDS)).all()
    list(garbage._unreferenced(session, iter([key_of(f"{n:064x}") for n in range(500)]), set()))
    garbage._is_referenced(session, key_of("a" * 64))


def _purge(session: Session) -> None:
    """All statements of a purge."""
    for table, prefix in ((ModuleRow, "mod"), (DatasetRow, "ds"), (VersionRow, "ver")):
        row = session.get_one(table, f"{prefix}_{N}")
        blockers.of(session, row)
        purges.preview(session, row)
        purges._empty(session, row)


def _retire(session: Session) -> None:
    session.get_one(WorkspaceRow, "default").retention_days = 30
    for table, prefix in ((ModuleRow, "mod"), (DatasetRow, "ds"), (VersionRow, "ver")):
        session.get_one(table, f"{prefix}_{N}").archived_at = clock.now(session) - timedelta(days=90)
    session.flush()
    for workspace in workspaces.list_workspaces(session):
        assert list(retention._of_workspace(session, workspace))


def _lists(session: Session) -> None:
    after = Window(20, encode(f"job_{N}"))
    for state in (None, "failed", "queued", "running"):
        jobs.list_jobs(session, Window(), state=state)
        jobs.list_jobs(session, after, state=state)
    for archived in (False, True):
        models.list_models(session, Window(), archived=archived)
        datasets.list_datasets(session, Window(), archived=archived)
        modules.list_modules(session, Window(), archived=archived)
        models.list_versions(session, f"model-{many.MANY // 2}", Window(), archived=archived)
    deployments.list_deployments(session, Window())
    deployments.list_revisions(session, deployments.get(session, "dep-1"), Window())
    events.list_events(session, f"job_{N}", Window())
    events.events_after(session, f"job_{N}", 0)
    events.list_trials(session, f"job_{N}", Window())
    audit.list_entries(session, Window())
    audit.list_entries(session, Window(), key_id="key_5")
    keys.list_keys(session, Window())
    webhooks.list_webhooks(session, Window())


def _serving(session: Session) -> None:
    for wanted in desired.deployments(session):
        desired.attachable(session, wanted, 8)


def _attach(session: Session) -> None:
    deployments.attach(session, "dep-1", f"mod_{1:032x}")
    deployments.detach(session, "dep-1", f"mod_{1:032x}")
    reports.observe(session, "dep-1", 2)


def _submit(session: Session) -> None:
    workspaces.live_jobs(session)
    models.resolve(session, f"model-{many.MANY // 2}")
    jobs.get(session, f"job_{N}", *jobs.AS_SHOWN)
    jobs.get(session, f"job_{N}")


def _upload(session: Session) -> None:
    row = uploads.declare(session, uploads.draft(bytes=1, sha256="0" * 64, limit=10))
    uploads.get(session, row.id)
    uploads.completed(session, f"up_{N}", keep=True)
    uploads.delete(session, f"up_{N}")


def _keys(session: Session) -> None:
    row, secret = keys.create(session, name="k", scopes=["read"])
    keys.authenticate(session, secret)
    keys.revoke(session, row.id)
    idempotency.recall(session, "k5", "d")


HOT: dict[str, Act] = {
    "a job's life": writing(_job),
    "a version's check": writing(_version),
    "the sweep of every second": writing(_sweep),
    "looking for a job": writing(lambda session: runs.claim(session, "w")),
    "looking for a step": writing(lambda session: steps.claim_shared(session, "w", 20)),
    "deliveries": writing(_deliver),
    "garbage": writing(_collect),
    "purges": writing(_purge),
    "retention": writing(_retire),
    "lists": reading(_lists),
    "what is served": reading(_serving),
    "attaching": writing(_attach),
    "submitting": reading(_submit),
    "uploads": writing(_upload),
    "keys": writing(_keys),
    "metrics": reading(metrics.count),
    "the mark of the wanted state": reading(desired.mark),
}


@pytest.mark.parametrize("name", HOT)
def test_no_large_table_is_read_as_a_whole(filled: Zoo, name: str) -> None:
    with many.listening(filled) as sent:
        HOT[name](filled)
    assert sent
    with filled.database.engine.connect() as connection:
        found = {statement: many.read_whole(connection, statement, asked) for statement, asked in sent}
    assert {statement: tables for statement, tables in found.items() if tables} == {}


def test_the_tables_are_large(filled: Zoo) -> None:
    """The number of rows is that of the filled zoo: all changes were rolled back."""
    for table in sorted(many.LARGE):
        assert many.count(filled, table) >= many.MANY, table
    with filled.database.read() as session:
        assert session.get_one(DeliveryRow, f"dlv_{N}").lease_worker is None
