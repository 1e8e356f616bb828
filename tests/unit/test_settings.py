"""Settings: read from the environment, handed on to children, wrong ones refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy import make_url

from app.settings import Settings


def test_a_child_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = Settings(data_dir=tmp_path / "a b?c=1", port=1234, allowed_hosts=("zoo", "menagerie"), threads=2)
    for name, value in given.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == given


def test_hosts_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNC_ALLOWED_HOSTS", "zoo.example, other.example")
    assert Settings().allowed_hosts == ("zoo.example", "other.example")


@pytest.mark.parametrize("name", ["plain", "with space", "q?x=1", "a#b", "50%41"])
def test_the_database_lies_in_the_data_directory(tmp_path: Path, name: str) -> None:
    url = make_url(Settings(data_dir=tmp_path / name).database_url)
    assert url.database == str(tmp_path / name / "zoo.db")


def test_a_heartbeat_slower_than_the_lease_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"expected less than lease_seconds \(5\), got 5"):
        Settings(lease_seconds=5, heartbeat_seconds=5)


@pytest.mark.parametrize(
    ("host", "safe"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_only_loopback_is_loopback(host: str, safe: bool) -> None:
    assert Settings(host=host).is_loopback == safe


@pytest.mark.parametrize("url", ["amqp://host", "redis:host", "memory://", ""])
def test_a_broker_that_is_not_redis_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="expected redis://"):
        Settings(broker_url=url)


def test_a_secret_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://user:word@db/zoo\n")
    (tmp_path / "hosts").write_text(" zoo, menagerie\n")
    monkeypatch.setenv("PNC_DATABASE_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("PNC_ALLOWED_HOSTS_FILE", str(tmp_path / "hosts"))
    assert Settings().database_url == "postgresql://user:word@db/zoo"
    assert Settings().allowed_hosts == ("zoo", "menagerie")
    monkeypatch.setenv("PNC_DATABASE_URL", "sqlite:///here.db")
    assert Settings().database_url == "sqlite:///here.db"
    assert Settings(database_url="sqlite:///given.db").database_url == "sqlite:///given.db"


def test_a_setting_that_is_a_file_stays_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PNC_SECRET_KEY_FILE", str(tmp_path / "keys"))
    assert Settings().secret_key is None
    assert Settings().secret_key_file == tmp_path / "keys"


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PNC_INTERNAL_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"PNC_INTERNAL_KEY_FILE: expected a readable text file, got .*none"):
        Settings()
    (tmp_path / "none").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="bytes that are no text"):
        Settings()


def test_an_invalid_value_in_a_file_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("too-short-secret")
    monkeypatch.setenv("PNC_INTERNAL_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "too-short-secret" not in str(caught.value)
