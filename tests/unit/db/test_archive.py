"""What is archived leaves the lists and takes no new work; what runs goes on, and restoring brings it back."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.db.pages import Window
from app.deployments import desired
from app.deployments import service as deployments
from app.errors import Archived, Invalid
from app.jobs import service as jobs
from app.models import service as models
from app.modules import service as modules
from app.modules.tables import ModuleRow
from app.web import catalogue
from app.web.catalogue import ListQuery
from app.zoo import Zoo
from tests.unit import seeds


@pytest.fixture
def module(zoo: Zoo, session: Session) -> ModuleRow:
    """Cloned from `high` into `low`."""
    return seeds.module(session, zoo)


def test_lists_show_it_only_when_asked(session: Session, module: ModuleRow) -> None:
    data = seeds.job_of(session, module).dataset_id
    models.put_version_away(session, "low", 1, archived=True)
    datasets.set_archived(session, data, archived=True)
    modules.set_archived(session, module.id, archived=True)
    lists: list[Callable[..., object]] = [
        lambda **given: models.list_versions(session, "low", Window(), **given),
        lambda **given: datasets.list_datasets(session, Window(), **given),
        lambda **given: modules.list_modules(session, Window(), **given),
    ]
    for listed in lists:
        assert len(listed().data) == 0  # type: ignore[attr-defined]
        assert len(listed(archived=True).data) == 1  # type: ignore[attr-defined]
    for find in (catalogue.datasets, catalogue.modules):
        assert find(session, ListQuery()).total == 0
        assert find(session, ListQuery(state="archived")).total == 1
    assert {(line.model.name, line.version is None) for line in catalogue.models(session, ListQuery()).rows} == {
        ("low", True),
        ("high", False),
    }


def test_it_takes_no_jobs_until_it_is_restored(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    models.put_version_away(session, "low", 1, archived=True)
    datasets.set_archived(session, request.dataset, archived=True)
    problems, *_ = jobs.validate(session, request)
    assert [(p.pointer, p.code) for p in problems] == [
        ("/target", "version_archived"),
        ("/dataset", "dataset_archived"),
    ]
    with pytest.raises(Invalid):
        jobs.submit(session, request)
    models.put_version_away(session, "low", 1, archived=False)
    datasets.set_archived(session, request.dataset, archived=False)
    assert jobs.submit(session, request).state == "queued"


def test_archiving_again_keeps_the_moment(zoo: Zoo, session: Session) -> None:
    seeds.version(session, zoo, "a")
    first = models.put_version_away(session, "a", 1, archived=True).archived_at
    assert models.put_version_away(session, "a", 1, archived=True).archived_at == first
    assert models.put_version_away(session, "a", 1, archived=False).archived_at is None


def test_a_bare_name_means_a_version_that_is_in_use(zoo: Zoo, session: Session) -> None:
    seeds.version(session, zoo, "a")
    second = models.add_version(
        session, "a", upload_id=seeds.upload(session, zoo, seeds.tensors(5)).id, spec=seeds.network()
    )
    seeds.accept(session, second, "5" * 64)
    assert models.resolve(session, "a").number == 2
    models.put_version_away(session, "a", 2, archived=True)
    assert models.resolve(session, "a").number == 1
    (line,) = catalogue.models(session, ListQuery()).rows
    assert line.version is not None
    assert line.version.number == 1


def test_what_is_attached_goes_on_and_what_is_not_stays_out(session: Session, module: ModuleRow) -> None:
    deployments.put(session, "digits", "low")
    deployments.attach(session, "digits", module.id)
    modules.set_archived(session, module.id, archived=True)
    assert [m.id for m in desired.deployments(session)[0].modules] == [module.id]
    assert not deployments.attach(session, "digits", module.id).changed
    assert not deployments.set_modules(session, "digits", [module.id]).changed
    deployments.detach(session, "digits", module.id)
    for again in (
        lambda: deployments.attach(session, "digits", module.id),
        lambda: deployments.set_modules(session, "digits", [module.id]),
        lambda: deployments.rollback(session, "digits", 2),
    ):
        with pytest.raises(Archived, match="restore it first"):
            again()
    modules.set_archived(session, module.id, archived=False)
    assert deployments.rollback(session, "digits", 2).changed


def test_an_archived_target_goes_on_but_is_not_served_anew(session: Session, module: ModuleRow) -> None:
    deployments.put(session, "digits", "low")
    models.change(session, "low", archived=True)
    assert not deployments.put(session, "digits", "low").changed
    with pytest.raises(Invalid) as refused:
        deployments.put(session, "other", "low")
    assert [p.code for p in refused.value.problems] == ["model_archived"]
    assert deployments.attach(session, "digits", module.id).changed


def test_an_archived_model_takes_no_versions(zoo: Zoo, session: Session) -> None:
    seeds.version(session, zoo, "a")
    models.change(session, "a", archived=True)
    with pytest.raises(Archived):
        models.add_version(
            session, "a", upload_id=seeds.upload(session, zoo, seeds.tensors(5)).id, spec=seeds.network()
        )


def test_a_job_that_waits_goes_on(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    job = jobs.submit(session, request)
    models.change(session, "high", archived=True)
    models.put_version_away(session, "low", 1, archived=True)
    assert jobs.get(session, job.id).state == "queued"
    with pytest.raises(Invalid):
        jobs.submit(session, replace(request, max_seconds=60))
