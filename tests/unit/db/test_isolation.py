"""What one workspace has is not there for another, whatever a query looks like."""

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import aliased

from app.access import workspaces
from app.access.keys import SCOPES, Caller
from app.compositions import service as compositions
from app.datasets import service as datasets
from app.db import idempotency
from app.db.pages import Window
from app.db.tables import Owned
from app.deployments import desired, reports
from app.deployments import service as deployments
from app.errors import AlreadyExists, Invalid, NotFound, QuotaExceeded
from app.imports import service as imports
from app.jobs import runs
from app.jobs import service as jobs
from app.jobs.tables import JobRow
from app.models import service as models
from app.models.tables import ModelRow, VersionRow
from app.modules import service as modules
from app.modules.tables import ModuleRow
from app.store import uploads
from app.store.tables import UploadRow
from app.web import catalogue
from app.web.catalogue import ListQuery
from app.webhooks import outbox
from app.webhooks import service as webhooks
from app.webhooks.tables import WebhookRow
from app.zoo import Zoo
from tests.unit import seeds


def seen(zoo: Zoo, workspace: str) -> Zoo:
    return zoo.seen_by(Caller(workspace, frozenset(SCOPES)))


@pytest.fixture
def two(zoo: Zoo) -> tuple[Zoo, Zoo, str]:
    """The zoo as two workspaces see it, of which the first has one of everything, and its module."""
    with zoo.database.write() as session:
        for name in ("red", "blue"):
            workspaces.create(session, name)
    red, blue = seen(zoo, "red"), seen(zoo, "blue")
    with red.database.write() as session:
        webhooks.create(session, url="https://hooks.example/red")
        imports.submit(session, source="torchvision/resnet18", hosts=())
        module = seeds.module(session, red).id
        deployments.put(session, "digits", "low")
        deployments.attach(session, "digits", module)
        (data,) = datasets.list_datasets(session, Window(1, None)).data
        compositions.submit(session, target="low", module_ids=[module], dataset_id=data.id, head="affine")
    return red, blue, module


def test_everything_made_belongs_to_the_workspace(two: tuple[Zoo, Zoo, str]) -> None:
    red, blue, _ = two
    kinds = [mapper.class_ for mapper in Owned.__subclasses__()[0].registry.mappers if issubclass(mapper.class_, Owned)]
    assert len(kinds) >= 9
    for kind in (
        k for k in kinds if k.__tablename__ not in ("keys", "audit", "idempotency_keys", "trusted_keys", "signatures")
    ):
        with red.database.read() as session:
            rows = session.scalars(select(kind)).all()
            assert rows, kind
            assert {row.workspace for row in rows} == {"red"}
        with blue.database.read() as session:
            assert session.scalars(select(kind)).all() == []


def test_a_webhook_is_told_of_its_own_workspace_alone_by_sessions_of_none(two: tuple[Zoo, Zoo, str], zoo: Zoo) -> None:
    red, blue, _ = two
    with blue.database.write() as session:
        mine = webhooks.create(session, url="https://hooks.example/blue")[0].id
    with zoo.database.write() as session:
        reports.observe(session, "red/digits", deployments.get(session, "red/digits").generation)
    with red.database.read() as session:
        theirs = session.scalars(select(WebhookRow.id)).one()
        assert outbox.list_deliveries(session, theirs, Window()).data[0].type == "deployment.served"
    with blue.database.read() as session:
        assert outbox.list_deliveries(session, mine, Window()).data == []


def test_no_kind_of_query_tells_of_another_workspace(two: tuple[Zoo, Zoo, str]) -> None:
    _, blue, module = two
    model = aliased(ModelRow)
    with blue.database.read() as session:
        assert session.get(ModuleRow, module) is None
        assert session.scalar(select(func.count()).select_from(ModelRow)) == 0
        assert session.scalar(select(func.count(VersionRow.id))) == 0
        assert session.scalars(select(model.name)).all() == []
        assert session.scalars(select(ModelRow.name).where(ModelRow.id.in_(select(VersionRow.model_id)))).all() == []
        assert session.scalar(select(select(UploadRow.digest).limit(1).scalar_subquery())) is None
        assert (
            session.execute(select(JobRow, ModuleRow).outerjoin(ModuleRow, ModuleRow.job_id == JobRow.id)).all() == []
        )
        assert session.scalar(select(JobRow.id).union(select(ModuleRow.id))) is None
    with blue.database.write() as session:
        assert session.execute(update(ModelRow).values(description="mine")).rowcount == 0  # type: ignore[attr-defined]


def test_names_and_ids_of_another_workspace_lead_nowhere(two: tuple[Zoo, Zoo, str]) -> None:
    red, blue, module = two
    with red.database.read() as session:
        job = session.scalars(select(JobRow)).one()
        data, version = job.dataset_id, job.target_version_id
    with blue.database.write() as session:
        for call in (
            lambda: models.get(session, "low"),
            lambda: models.resolve(session, version),
            lambda: models.resolve(session, "low@1"),
            lambda: jobs.get(session, job.id),
            lambda: jobs.cancel(session, job.id),
            lambda: datasets.get(session, data),
            lambda: modules.get(session, module),
            lambda: deployments.get(session, "digits"),
            lambda: deployments.get(session, "red/digits"),
            lambda: deployments.attach(session, "digits", module),
        ):
            with pytest.raises(NotFound):
                call()
        assert jobs.list_jobs(session, Window()).data == []
        assert catalogue.models(session, ListQuery()).total == 0
        assert catalogue.serving(session, f"{1:064x}") == []


def test_names_are_unique_in_a_workspace_alone(two: tuple[Zoo, Zoo, str]) -> None:
    red, blue, module = two
    with blue.database.write() as session:
        seeds.version(session, blue, "low", value=1)
        deployments.put(session, "digits", "low")
        with pytest.raises(NotFound):
            deployments.attach(session, "digits", module)
    with red.database.write() as session, pytest.raises(AlreadyExists):
        models.create(session, name="low")


def test_serving_follows_both_under_names_of_their_own(two: tuple[Zoo, Zoo, str], zoo: Zoo) -> None:
    _, blue, module = two
    with blue.database.write() as session:
        seeds.version(session, blue, "low", value=1)
        deployments.put(session, "digits", "low")
    with zoo.database.write() as session:
        wanted = {d.name: d for d in desired.deployments(session)}
        assert set(wanted) == {"red/digits", "blue/digits"}
        assert [m.id for m in desired.attachable(session, wanted["red/digits"], 8)] == [module]
        assert desired.attachable(session, wanted["blue/digits"], 8) == []
        reports.observe(session, "blue/digits", 1)
        reports.refuse(session, "red/digits", 2, {"code": "x", "detail": "y"})
    with zoo.database.read() as session:
        assert {d.name: d.generation for d in desired.deployments(session)} == {"red/digits": 3, "blue/digits": 1}


def test_workers_take_jobs_of_all_and_publish_where_they_belong(two: tuple[Zoo, Zoo, str], zoo: Zoo) -> None:
    _, blue, _ = two
    with blue.database.write() as session:
        seeds.queued(session, blue)
    with zoo.database.write() as session:
        lease = runs.claim(session, "worker")
        assert lease is not None
        module = seeds.publish(session, zoo, lease)
        assert module.workspace == "blue"


def test_an_idempotency_key_is_the_workspaces_own(two: tuple[Zoo, Zoo, str]) -> None:
    red, blue, _ = two
    with red.database.write() as session:
        idempotency.remember(session, "k", "digest", status=201, location=None, body="secret of red")
    with blue.database.write() as session:
        assert idempotency.recall(session, "k", "digest") is None
        idempotency.remember(session, "k", "digest", status=201, location=None, body="of blue")
    with red.database.write() as session:
        known = idempotency.recall(session, "k", "digest")
        assert known is not None
        assert known.body == "secret of red"


def test_an_upload_of_known_bytes_is_no_shortcut(two: tuple[Zoo, Zoo, str]) -> None:
    """A digest that another workspace has must be sent like any other: nothing says that it is there."""
    red, blue, _ = two
    with red.database.read() as session:
        digest = session.scalars(select(VersionRow.digest)).first()
    assert digest is not None
    with blue.database.write() as session:
        upload = uploads.declare(session, uploads.draft(bytes=100, sha256=digest, limit=10**9))
        assert upload.key is None
        assert blue.inbox.received(upload) == 0
        with pytest.raises(Invalid):
            uploads.completed(session, upload.id)


def test_quotas_count_the_workspaces_own_alone(two: tuple[Zoo, Zoo, str], zoo: Zoo) -> None:
    red, blue, _ = two
    with zoo.database.write() as session:
        workspaces.get(session, "blue").max_bytes = 100
        workspaces.get(session, "blue").max_jobs = 0
    with red.database.read() as session:
        assert workspaces.stored_bytes(session) > 100
    with blue.database.write() as session:
        assert workspaces.stored_bytes(session) == 0
        uploads.declare(session, uploads.draft(bytes=100, sha256="0" * 64, limit=10**9))
        with pytest.raises(QuotaExceeded) as refused:
            uploads.declare(session, uploads.draft(bytes=1, sha256="0" * 64, limit=10**9))
        assert refused.value.seconds > 0
        assert "100 bytes" in str(refused.value)
        with pytest.raises(QuotaExceeded):
            workspaces.check_jobs(session)


def test_bytes_that_many_rows_name_count_once(two: tuple[Zoo, Zoo, str]) -> None:
    red, _, _ = two
    with red.database.read() as session:
        versions = session.scalars(select(VersionRow)).all()
        job = session.scalars(select(JobRow)).one()
        assert job.module is not None
        bundles = sum(b.bytes for b in job.module.bundles)
        assert workspaces.stored_bytes(session) == sum(v.bytes for v in versions) + job.dataset.bytes + bundles
