"""Reports of the serving process, and reverts after a refusal."""

import pytest
from sqlalchemy.orm import Session

from app.deployments import desired, reports
from app.deployments import service as deployments
from app.modules.tables import ModuleRow
from app.zoo import Zoo
from tests.unit import seeds


@pytest.fixture
def module(zoo: Zoo, session: Session) -> ModuleRow:
    """A module for `low`, which is served as `digits`."""
    module = seeds.module(session, zoo)
    deployments.put(session, "digits", "low")
    return module


def _desired(session: Session) -> tuple[int, list[str]]:
    (wanted,) = desired.deployments(session)
    return wanted.generation, [m.id for m in wanted.modules]


def test_a_revert_publishes_the_last_good_revision(session: Session, module: ModuleRow) -> None:
    deployments.attach(session, "digits", module.id)
    row = reports.revert(session, "digits", 2)
    assert row is not None
    assert _desired(session) == (3, [])


def test_a_revert_skips_refused_revisions(zoo: Zoo, session: Session, module: ModuleRow) -> None:
    other = seeds.another_module(session, zoo, seeds.job_of(session, module).dataset_id, ("9",))
    deployments.attach(session, "digits", module.id)  # 2 will be refused ...
    deployments.attach(session, "digits", other.id)  # ... after 3 was built on it
    reports.revert(session, "digits", 2)
    assert _desired(session) == (3, [module.id, other.id])
    reports.revert(session, "digits", 3)
    assert _desired(session) == (4, [])


def test_a_revert_of_the_first_revision_deletes_the_deployment(session: Session, module: ModuleRow) -> None:
    assert reports.revert(session, "digits", 1) is None
    assert desired.deployments(session) == []


def test_older_reports_are_ignored(session: Session, module: ModuleRow) -> None:
    deployments.attach(session, "digits", module.id)
    reports.observe(session, "digits", 2, error={"code": "x"})
    reports.observe(session, "digits", 1)
    row = deployments.get(session, "digits")
    assert (row.observed_generation, row.observed_problem) == (2, {"code": "x"})
    reports.observe(session, "digits", 2)
    assert row.observed_problem is None
    reports.observe(session, "gone", 1)


def test_a_generation_refused_before_it_was_served_is_reverted(session: Session, zoo: Zoo) -> None:
    module = seeds.module(session, zoo)
    deployments.put(session, "digits", "low")
    reports.observe(session, "digits", 1)
    deployments.attach(session, "digits", module.id)
    reports.refuse(session, "digits", 2, {"code": "invalid_bundle", "detail": "damaged"})
    row = deployments.get(session, "digits")
    assert row.generation == 3
    assert deployments.revision(session, row).attachments == []


def test_a_generation_that_was_served_stays_desired_after_a_later_refusal(session: Session, zoo: Zoo) -> None:
    module = seeds.module(session, zoo)
    deployments.put(session, "digits", "low")
    deployments.attach(session, "digits", module.id)
    reports.observe(session, "digits", 2)
    for _ in range(2):  # after a restart, and once more
        reports.refuse(session, "digits", 2, {"code": "digest_mismatch", "detail": "changed on disk"})
    row = deployments.get(session, "digits")
    assert row.generation == 2
    assert row.observed_problem is not None
