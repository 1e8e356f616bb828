"""Secrets that must be kept readable are encrypted wherever they lie."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select, text

from app.access.secrets_at_rest import seal_all
from app.db import idempotency, sealing
from app.db.tables import IdempotencyRow
from app.errors import Misconfigured
from app.settings import Settings
from app.webhooks import outbox
from app.webhooks import service as webhooks
from app.webhooks.tables import WebhookRow
from app.zoo import Zoo, open_zoo
from tests.unit import seeds

URL = "https://hooks.example/pnc"
PLAIN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD, GONE = "whsec_c29tZSBvdGhlciBzZWNyZXQgb2xkZXI=", "whsec_b25lIHRoYXQgd2FzIGRlbGV0ZWQgbG9uZyBhZ28="


def keys(number: int) -> list[str]:
    return [Fernet.generate_key().decode() for _ in range(number)]


def opened(data: Path, *given: str) -> Zoo:
    if not (data / seeds.DATABASE).exists():
        seeds.lay_database(data)
    return open_zoo(Settings(data_dir=data, secret_key=",".join(given) or None))


def found(data: Path, secret: str) -> list[Path]:
    return [path for path in data.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def made(zoo: Zoo) -> tuple[str, str]:
    """Id and secret of a new webhook."""
    with zoo.database.write() as session:
        row, secret = webhooks.create(session, url=URL)
        return row.id, secret


def signing(zoo: Zoo, hook: str) -> tuple[str, ...]:
    with zoo.database.read() as session:
        return webhooks.secrets_of(session, webhooks.get(session, hook))


def from_an_earlier_version(zoo: Zoo) -> None:
    """Rows as they were: readable, and a webhook that was deleted, whose page was freed."""
    with zoo.database.write() as session:
        for number, secret in ((1, PLAIN), (2, GONE)):
            session.add(WebhookRow(id=f"whk_{number}", url=URL, events=[], sealed=secret, sealed_old=OLD))
        body = f'{{"id":"whk_1","secret":"{PLAIN}"}}'
        session.add(IdempotencyRow(key="k", request_digest="d", status=201, location=None, body=body))
    with zoo.database.write() as session:
        webhooks.delete(session, "whk_2")


def test_no_byte_of_the_data_directory_tells_a_secret(tmp_path: Path) -> None:
    zoo = opened(tmp_path)
    hook, first = made(zoo)
    with zoo.database.write() as session:
        _, second = webhooks.rotate(session, hook)
        idempotency.remember(session, "k", "d", status=201, location=None, body=f"shows {second}", is_secret=True)
    with zoo.database.read() as session:
        kept = idempotency.recall(session, "k", "d")
        assert kept is not None
        assert idempotency.body_of(session, kept) == f"shows {second}"
    assert signing(zoo, hook) == (second, first)
    assert found(tmp_path, URL)  # what is looked for would be found
    assert found(tmp_path, first) == found(tmp_path, second) == []
    zoo.close()
    assert found(tmp_path, first) == found(tmp_path, second) == []


def test_what_an_earlier_version_left_readable_is_sealed_and_nowhere_else(tmp_path: Path) -> None:
    zoo = opened(tmp_path)
    from_an_earlier_version(zoo)
    assert all(found(tmp_path, secret) for secret in (PLAIN, OLD, GONE))
    seal_all(zoo)
    assert [found(tmp_path, secret) for secret in (PLAIN, OLD, GONE)] == [[], [], []]
    with zoo.database.read() as session:
        assert session.scalars(select(WebhookRow.sealed)).one().startswith("sealed:")
        kept = idempotency.recall(session, "k", "d")
        assert kept is not None
        assert PLAIN in idempotency.body_of(session, kept)
    assert signing(zoo, "whk_1") == (PLAIN,)
    zoo.close()
    assert [found(tmp_path, secret) for secret in (PLAIN, OLD, GONE)] == [[], [], []]


def test_the_file_is_built_anew_once(tmp_path: Path) -> None:
    zoo = opened(tmp_path)
    seal_all(zoo)
    with zoo.database.engine.connect() as connection:
        assert connection.scalar(text("PRAGMA user_version")) == 1
    before = (tmp_path / seeds.DATABASE).stat().st_mtime_ns
    seal_all(zoo)
    assert (tmp_path / seeds.DATABASE).stat().st_mtime_ns == before
    zoo.close()


def test_a_new_key_goes_before_the_old_one_and_the_old_one_can_go(tmp_path: Path) -> None:
    old, new = keys(2)
    zoo = opened(tmp_path, old)
    hook, secret = made(zoo)
    zoo.close()
    zoo = opened(tmp_path, new, old)
    assert signing(zoo, hook) == (secret,)
    seal_all(zoo)
    zoo.close()
    zoo = opened(tmp_path, new)
    seal_all(zoo)
    assert signing(zoo, hook) == (secret,)
    zoo.close()


def test_a_wrong_key_is_an_error_that_names_the_setting_and_the_way_out(tmp_path: Path) -> None:
    right, wrong = keys(2)
    zoo = opened(tmp_path, right)
    hook, secret = made(zoo)
    zoo.close()
    zoo = opened(tmp_path, wrong)
    with pytest.raises(Misconfigured, match=r"PNC_SECRET_KEY: expected the key .* got another.*--forget-secrets"):
        seal_all(zoo)
    seal_all(zoo, forget=True)
    with zoo.database.read() as session:
        row = webhooks.get(session, hook)
        assert (row.enabled, "rotate it" in (row.problem or "")) == (False, True)
        assert webhooks.secrets_of(session, row) != (secret,)
    zoo.close()


def test_without_a_key_messages_wait_and_the_setting_is_named(tmp_path: Path) -> None:
    zoo = opened(tmp_path)
    hook, _ = made(zoo)
    with zoo.database.write() as session:
        outbox.post_test(session, hook)
    zoo.database.sealer = None
    with pytest.raises(Misconfigured, match="PNC_SECRET_KEY: expected a key"):
        made(zoo)
    with zoo.database.write() as session:
        with pytest.raises(Misconfigured, match="PNC_SECRET_KEY"), session.begin_nested():
            outbox.claim(session, "worker")
        assert outbox.is_due(session)
    zoo.close()


def test_only_who_shares_the_database_with_nobody_makes_a_key(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert sealing.sealer_of(settings, make=False) is None
    first, second = (sealing.sealer_of(settings, make=True) for _ in range(2))
    assert first is not None
    assert second is not None
    assert second.open(first.seal("text")) == "text"
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("given", ["short", "AAAA,BBBB"])
def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path, given: str) -> None:
    with pytest.raises(Misconfigured, match="PNC_SECRET_KEY: expected keys of 32 random bytes") as refused:
        open_zoo(Settings(data_dir=tmp_path, secret_key=given))
    assert given not in str(refused.value)
    with pytest.raises(Misconfigured, match=r"PNC_SECRET_KEY_FILE .*none\): expected a file"):
        open_zoo(Settings(data_dir=tmp_path, secret_key_file=tmp_path / "none"))
