import pytest
from sqlalchemy.orm import Session

from app.deployments import desired
from app.deployments import service as deployments
from app.errors import ClassCollision, Conflict, Invalid, NotFound, StaleRevision, TargetMismatch
from app.jobs import recovery
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


def test_desired_holds_all_that_serving_needs(zoo: Zoo, session: Session, module: ModuleRow) -> None:
    deployments.attach(session, "digits", module.id)
    (wanted,) = desired.deployments(session)
    assert (wanted.name, wanted.generation, wanted.version, wanted.fingerprint) == ("digits", 2, "low@1", f"{1:064x}")
    assert wanted.spec == seeds.network()
    assert zoo.store.size(wanted.weights_key) == len(seeds.tensors())
    assert [m.key for m in wanted.modules] == [b.key for b in module.bundles if b.payload == "full"]


def test_attach_and_detach_are_idempotent_generations(session: Session, module: ModuleRow) -> None:
    assert deployments.attach(session, "digits", module.id).changed
    assert not deployments.attach(session, "digits", module.id).changed
    assert _desired(session) == (2, [module.id])
    assert deployments.detach(session, "digits", module.id).changed
    assert not deployments.detach(session, "digits", module.id).changed
    assert _desired(session) == (3, [])


def test_a_module_for_another_target_is_refused(zoo: Zoo, session: Session, module: ModuleRow) -> None:
    seeds.version(session, zoo, "other", seeds.LOW, value=9)
    deployments.put(session, "elsewhere", "other")
    with pytest.raises(TargetMismatch, match=r"low@1.*other@1"):
        deployments.attach(session, "elsewhere", module.id)


def test_classes_that_are_there_already_are_refused(zoo: Zoo, session: Session, module: ModuleRow) -> None:
    deployments.attach(session, "digits", module.id)
    twin = seeds.another_module(session, zoo, seeds.job_of(session, module).dataset_id, ("8", "9"))
    with pytest.raises(ClassCollision, match=f"'8' of {module.id}"):
        deployments.attach(session, "digits", twin.id)
    assert _desired(session) == (2, [module.id])


def test_if_match_refuses_a_stale_generation(session: Session, module: ModuleRow) -> None:
    deployments.attach(session, "digits", module.id, if_match=1)
    with pytest.raises(StaleRevision, match=r"expected generation 1 .* got 2"):
        deployments.detach(session, "digits", module.id, if_match=1)


def test_only_ready_versions_are_served(zoo: Zoo, session: Session) -> None:
    seeds.version(session, zoo, "early", status="validating")
    with pytest.raises(Invalid, match="validating"):
        deployments.put(session, "early", "early")


def test_the_target_changes_only_when_bare(zoo: Zoo, session: Session, module: ModuleRow) -> None:
    seeds.version(session, zoo, "other", seeds.LOW, value=9)
    deployments.attach(session, "digits", module.id)
    with pytest.raises(Conflict, match="detach them first"):
        deployments.put(session, "digits", "other")
    deployments.detach(session, "digits", module.id)
    assert deployments.put(session, "digits", "other").changed
    assert not deployments.put(session, "digits", "other").changed


def test_generations_go_on_when_a_name_comes_back(session: Session, module: ModuleRow) -> None:
    deployments.delete(session, "digits")
    with pytest.raises(NotFound):
        deployments.get(session, "digits")
    deployments.put(session, "digits", "low")
    assert _desired(session) == (2, [])


def test_a_module_needs_no_worker_to_stay(zoo: Zoo, session: Session, module: ModuleRow) -> None:
    assert recovery.sweep(session) == 0
