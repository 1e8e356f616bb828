import pytest
from sqlalchemy import select

from app.access import workspaces
from app.db.isolation import confine
from app.deployments import service as deployments
from app.errors import Invalid, Unsigned
from app.modules import signatures
from app.modules.tables import BundleRow, ModuleRow
from app.zoo import Zoo
from pnc_core.module import signing
from tests.unit import seeds
from tests.unit.pnc_core.module.test_signing import statement

KEY, STRANGER = signing.new_key(), signing.new_key()


def text_for(module: ModuleRow, key: object = KEY, **changes: str) -> str:
    bundles = {b.payload: b.digest for b in module.bundles}
    said = statement("", module=module.id, target_fingerprint=module.target_fingerprint, **changes)
    said.bundles.clear()
    said.bundles.update(bundles)
    return signing.sign(said, key).to_text()  # type: ignore[arg-type]


@pytest.fixture
def module(zoo: Zoo) -> str:
    """A module for a deployment of a workspace that requires signatures and trusts one key."""
    with zoo.database.write() as session:
        module = seeds.module(session, zoo)
        deployments.put(session, "digits", "low")
        workspaces.own(session).require_signature = True
        signatures.trust(session, name="release", key=signing.public_text(KEY))
        return module.id


def test_an_unsigned_module_is_not_attached(zoo: Zoo, module: str) -> None:
    with zoo.database.write() as session:
        with pytest.raises(Unsigned):
            deployments.attach(session, "digits", module)
        with pytest.raises(Unsigned):
            deployments.set_modules(session, "digits", [module])
        assert deployments.get(session, "digits").generation == 1


def test_a_signed_module_is(zoo: Zoo, module: str) -> None:
    with zoo.database.write() as session:
        signatures.put(session, module, text_for(session.get_one(ModuleRow, module)))
        assert deployments.attach(session, "digits", module).changed


def test_signatures_of_others_or_of_something_else_are_not_kept(zoo: Zoo, module: str) -> None:
    with zoo.database.write() as session:
        row = session.get_one(ModuleRow, module)
        for text in (text_for(row, STRANGER), text_for(row).replace("mod_", "mod-"), "{}", ""):
            with pytest.raises(Invalid):
                signatures.put(session, module, text)


def test_a_key_that_is_trusted_no_more_opens_nothing(zoo: Zoo, module: str) -> None:
    with zoo.database.write() as session:
        signatures.put(session, module, text_for(session.get_one(ModuleRow, module)))
        deployments.attach(session, "digits", module)
        deployments.detach(session, "digits", module)
        signatures.distrust(session, "release")
        with pytest.raises(Unsigned):
            deployments.attach(session, "digits", module)
        with pytest.raises(Unsigned):
            deployments.rollback(session, "digits", 2)
        with pytest.raises(Unsigned):
            signatures.check_served(session, [module])


def test_bytes_that_were_changed_behind_the_services_back_are_not_served(zoo: Zoo, module: str) -> None:
    """Somebody who can write to the database, but has no trusted key, puts another bundle in."""
    with zoo.database.write() as session:
        signatures.put(session, module, text_for(session.get_one(ModuleRow, module)))
    with zoo.database.write() as session:
        bundle = session.scalars(select(BundleRow).where(BundleRow.payload == "full")).one()
        bundle.digest = "f" * 64
    with zoo.database.read() as session, pytest.raises(Unsigned):
        signatures.check_served(session, [module])


def test_another_workspaces_trust_is_not_ours(zoo: Zoo, module: str) -> None:
    with zoo.database.write() as session:
        signatures.distrust(session, "release")
        workspaces.create(session, "other")
    with zoo.database.write() as session:
        confine(session, "other")
        signatures.trust(session, name="release", key=signing.public_text(KEY))
    with zoo.database.write() as session, pytest.raises(Invalid):
        signatures.put(session, module, text_for(session.get_one(ModuleRow, module)))
