from datetime import timedelta

import pytest
from sqlalchemy import select, text

from app.access import keys
from app.access.tables import KeyRow
from app.errors import Invalid, Unauthenticated
from app.zoo import Zoo


def made(zoo: Zoo, **given: object) -> tuple[str, str]:
    with zoo.database.write() as session:
        row, secret = keys.create(session, name="ci", scopes=["read"], **given)  # type: ignore[arg-type]
        return row.id, secret


def test_a_key_tells_who_has_it(zoo: Zoo) -> None:
    key_id, secret = made(zoo)
    with zoo.database.read() as session:
        caller = keys.authenticate(session, secret)
    assert (caller.key_id, caller.workspace, caller.scopes) == (key_id, "default", {"read"})
    assert caller.may("read")
    assert not caller.may("write")


def test_the_secret_is_nowhere_in_the_database(zoo: Zoo) -> None:
    _, secret = made(zoo)
    with zoo.database.read() as session:
        rows = session.execute(text("SELECT * FROM keys")).all()
    assert len(rows) == 1
    assert secret not in str(rows)
    assert len({made(zoo)[1] for _ in range(20)}) == 20


def test_every_changed_character_is_refused(zoo: Zoo) -> None:
    _, secret = made(zoo)
    with zoo.database.read() as session:
        for place in range(len(secret)):
            wrong = secret[:place] + ("0" if secret[place] != "0" else "1") + secret[place + 1 :]
            with pytest.raises(Unauthenticated):
                keys.authenticate(session, wrong)


@pytest.mark.parametrize("odd", ["", "pnc_", "x" * 55, "pnc_" + "é" * 51, "pnc_" + "a" * 10_000, "' OR 1=1 --"])
def test_what_is_no_key_is_refused_without_asking_the_database(zoo: Zoo, odd: str) -> None:
    assert not keys.is_secret(odd)
    with zoo.database.read() as session, pytest.raises(Unauthenticated):
        keys.authenticate(session, odd)


def test_a_revoked_key_ends_at_once_with_its_browsers(zoo: Zoo) -> None:
    key_id, secret = made(zoo)
    with zoo.database.read() as session:
        caller = keys.authenticate(session, secret)
    with zoo.seen_by(caller).database.write() as session:
        _, browser = keys.sign_in(session, caller)
    with zoo.database.write() as session:
        keys.revoke(session, key_id)
        keys.revoke(session, key_id)
    for ended in (secret, browser):
        with zoo.database.read() as session, pytest.raises(Unauthenticated):
            keys.authenticate(session, ended)
    with pytest.raises(Unauthenticated), zoo.seen_by(caller).database.read():
        raise AssertionError("a session was opened with a revoked key")


def test_a_browser_cannot_sign_others_in(zoo: Zoo) -> None:
    _, secret = made(zoo)
    with zoo.database.read() as session:
        caller = keys.authenticate(session, secret)
    with zoo.seen_by(caller).database.write() as session:
        _, browser = keys.sign_in(session, caller)
    with zoo.database.read() as session:
        caller = keys.authenticate(session, browser)
    with zoo.seen_by(caller).database.write() as session, pytest.raises(Unauthenticated):
        keys.sign_in(session, caller)


def test_a_browser_is_not_signed_in_for_longer_than_its_key_lives(zoo: Zoo) -> None:
    _, secret = made(zoo, lifetime=timedelta(minutes=5))
    with zoo.database.read() as session:
        caller = keys.authenticate(session, secret)
    with zoo.seen_by(caller).database.write() as session:
        browser, _ = keys.sign_in(session, caller)
        parent = session.get_one(KeyRow, caller.key_id)
        assert browser.expires_at is not None
        assert parent.expires_at is not None
        assert browser.expires_at <= parent.expires_at


def test_a_key_expires_by_the_databases_clock(zoo: Zoo) -> None:
    _, secret = made(zoo, lifetime=timedelta(seconds=-1))
    with zoo.database.read() as session, pytest.raises(Unauthenticated):
        keys.authenticate(session, secret)


@pytest.mark.parametrize("scopes", [[], ["everything"], ["read", "root"]])
def test_scopes_are_from_the_list(zoo: Zoo, scopes: list[str]) -> None:
    with zoo.database.write() as session, pytest.raises(Invalid):
        keys.create(session, name="ci", scopes=scopes)
    with zoo.database.read() as session:
        assert session.scalars(select(KeyRow)).all() == []
