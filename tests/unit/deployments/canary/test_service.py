"""Canaries: a second set of modules, in generations like every other change."""

import pytest
from sqlalchemy.orm import Session

from app.deployments import desired, reports
from app.deployments import service as deployments
from app.deployments.canary import service as canaries
from app.deployments.desired import DesiredCanary
from app.errors import Archived, ClassCollision, Conflict, Invalid, NotFound, StaleRevision
from app.lifecycle import blockers
from app.modules import service as modules
from app.modules.tables import ModuleRow
from app.zoo import Zoo
from tests.unit import seeds


@pytest.fixture
def module(zoo: Zoo, session: Session) -> ModuleRow:
    """A module for `low`, which is served as `digits`."""
    module = seeds.module(session, zoo)
    deployments.put(session, "digits", "low")
    return module


def another(session: Session, zoo: Zoo, module: ModuleRow, classes: tuple[str, ...] = ("9",)) -> ModuleRow:
    return seeds.another_module(session, zoo, seeds.job_of(session, module).dataset_id, classes)


def wanted(session: Session) -> tuple[int, list[str], DesiredCanary | None]:
    (found,) = desired.deployments(session)
    return found.generation, [m.id for m in found.modules], found.canary


def start(session: Session, ids: list[str], share: float = 0.25) -> DesiredCanary:
    assert canaries.put(session, "digits", ids, mode="canary", share=share).changed
    canary = wanted(session)[2]
    assert canary is not None
    return canary


def test_a_canary_is_a_generation_that_leaves_the_attached_modules(session: Session, module: ModuleRow) -> None:
    canary = start(session, [module.id])
    assert wanted(session)[:2] == (2, [])
    assert (canary.mode, canary.share, [m.id for m in canary.modules]) == ("canary", 0.25, [module.id])
    assert not canaries.put(session, "digits", [module.id], mode="canary", share=0.25).changed
    assert wanted(session)[0] == 2


def test_another_share_keeps_the_canary_and_other_modules_begin_a_new_one(
    zoo: Zoo, session: Session, module: ModuleRow
) -> None:
    first = start(session, [module.id])
    assert start(session, [module.id], 0.5).id == first.id
    other = another(session, zoo, module)
    second = start(session, [module.id, other.id], 0.5)
    assert second.id != first.id
    deployments.attach(session, "digits", module.id)  # the other side of the comparison changes
    third = wanted(session)[2]
    assert third is not None
    assert third.id not in (first.id, second.id)
    assert (third.modules, third.mode, third.share) == (second.modules, second.mode, second.share)


def test_a_canary_may_be_the_target_alone(session: Session, module: ModuleRow) -> None:
    deployments.attach(session, "digits", module.id)
    assert start(session, []).modules == ()
    canaries.promote(session, "digits")
    assert wanted(session) == (4, [], None)


def test_promoting_attaches_exactly_its_modules_and_ends_it(zoo: Zoo, session: Session, module: ModuleRow) -> None:
    other = another(session, zoo, module)
    deployments.attach(session, "digits", module.id)
    start(session, [other.id])
    assert canaries.promote(session, "digits").changed
    assert wanted(session) == (4, [other.id], None)
    with pytest.raises(NotFound, match="expected a canary"):
        canaries.promote(session, "digits")


def test_ending_a_canary_leaves_the_attached_modules(session: Session, module: ModuleRow) -> None:
    start(session, [module.id])
    assert canaries.end(session, "digits").changed
    assert not canaries.end(session, "digits").changed
    assert wanted(session) == (3, [], None)
    with pytest.raises(NotFound, match="expected a canary"):
        canaries.get(session, "digits")


def test_modules_that_do_not_go_together_are_refused(zoo: Zoo, session: Session, module: ModuleRow) -> None:
    twin = another(session, zoo, module, ("8", "9"))
    with pytest.raises(ClassCollision):
        start(session, [module.id, twin.id])
    with pytest.raises(Invalid, match="once"):
        start(session, [module.id, module.id])
    deployments.attach(session, "digits", module.id)
    start(session, [twin.id])  # the two sets may have classes in common


def test_an_archived_module_is_refused_unless_the_canary_has_it(session: Session, module: ModuleRow) -> None:
    modules.set_archived(session, module.id, True)
    with pytest.raises(Archived):
        start(session, [module.id])
    modules.set_archived(session, module.id, False)
    start(session, [module.id])
    modules.set_archived(session, module.id, True)
    start(session, [module.id], 0.5)


def test_a_module_in_a_canary_cannot_be_purged(session: Session, module: ModuleRow) -> None:
    modules.set_archived(session, module.id, True)
    assert blockers.of(session, module) == []
    modules.set_archived(session, module.id, False)
    start(session, [module.id])
    modules.set_archived(session, module.id, True)
    (found,) = blockers.of(session, module)
    assert "in the canary of digits; end that canary first" in found.detail


def test_the_target_changes_only_without_a_canary(zoo: Zoo, session: Session, module: ModuleRow) -> None:
    seeds.version(session, zoo, "other", seeds.LOW, value=9)
    start(session, [module.id])
    with pytest.raises(Conflict, match="end it first"):
        deployments.put(session, "digits", "other")


def test_a_rollback_ends_the_canary(session: Session, module: ModuleRow) -> None:
    start(session, [module.id])
    assert deployments.rollback(session, "digits", 1).changed
    assert wanted(session) == (3, [], None)
    assert deployments.rollback(session, "digits", 2).changed is False


def test_a_refused_change_brings_the_canary_back_with_its_counts(session: Session, module: ModuleRow) -> None:
    reports.observe(session, "digits", 1)
    before = start(session, [module.id])
    reports.observe(session, "digits", 2)
    start(session, [], 1.0)
    reports.refuse(session, "digits", 3, {"code": "no_effect", "detail": "no"})
    assert wanted(session) == (4, [], before)


def test_if_match_guards_a_canary(session: Session, module: ModuleRow) -> None:
    for change in (
        lambda: canaries.put(session, "digits", [], mode="canary", share=1, if_match=9),
        lambda: canaries.end(session, "digits", if_match=9),
        lambda: canaries.promote(session, "digits", if_match=9),
    ):
        with pytest.raises(StaleRevision):
            change()
