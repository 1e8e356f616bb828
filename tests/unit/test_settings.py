"""Settings: read from the environment, handed on to children, wrong ones refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError
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
