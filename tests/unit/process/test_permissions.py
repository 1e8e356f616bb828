"""Nobody but the service's user, or its group where that is wanted, can use what it keeps."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.process import permissions
from app.settings import Settings
from app.zoo import open_zoo
from tests.unit import seeds


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """As most users have it; the process gets its own back."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to(barred: int, root: Path) -> list[Path]:
    """What lies there, itself included, with a permission that is barred."""
    return [path for path in (root, *root.rglob("*")) if mode(path) & barred]


def use(settings: Settings) -> None:
    """A process that puts an object and writes a row."""
    zoo = open_zoo(settings)
    with zoo.database.write() as session:
        zoo.store.put([b"bytes"])
        seeds.upload(session, zoo, b"others")
    (zoo.staging / "up_1").write_bytes(b"half")
    zoo.close()


def spoil(root: Path) -> None:
    """Permissions as earlier versions gave them."""
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_new_files_are_their_owner_s_alone(tmp_path: Path) -> None:
    seeds.lay_database(tmp_path / "data")
    spoil(tmp_path / "data")
    use(Settings(data_dir=tmp_path / "data"))
    assert len(list((tmp_path / "data").rglob("*"))) > 6
    assert open_to(0o077, tmp_path / "data") == []
    assert mode(tmp_path / "data") == 0o700
    assert mode(tmp_path / "data" / "zoo.db") == mode(tmp_path / "data" / "secret.key") == 0o600


def test_old_files_are_mended_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, settings = tmp_path / "data", Settings(data_dir=tmp_path / "data")
    seeds.lay_database(data)
    use(settings)
    for name in ("zoo.db-wal", "zoo.db-shm", "lock"):
        (data / name).touch()
    spoil(data)
    caplog.set_level(logging.WARNING)
    caplog.clear()
    permissions.mend(settings)
    assert open_to(0o077, data) == []
    assert len(caplog.records) == 1
    assert "PNC_FILE_ACCESS" in caplog.text
    permissions.mend(settings)
    assert len(caplog.records) == 1


def test_one_open_object_behind_closed_doors_is_mended_where_a_service_starts(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    seeds.lay_database(tmp_path / "data")
    use(settings)
    path = next(p for p in (tmp_path / "data" / "objects").rglob("*") if p.is_file())
    path.chmod(0o644)
    permissions.mend(settings, deep=True)
    assert mode(path) == 0o600


def test_a_group_may_share_what_is_opened_to_it_by_the_setting(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", file_access="group")
    seeds.lay_database(tmp_path / "data")
    spoil(tmp_path / "data")
    use(settings)
    assert open_to(0o007, tmp_path / "data") == []
    store = tmp_path / "data" / "objects"
    assert all(mode(p) & 0o050 == 0o050 for p in store.rglob("*") if p.is_dir())
    assert mode(store / "incoming") == 0o770


def test_a_store_that_a_group_mounts_on_purpose_stays_theirs(tmp_path: Path) -> None:
    store = tmp_path / "shared"
    store.mkdir()
    store.chmod(0o2775)
    seeds.lay_database(tmp_path / "data")
    use(Settings(data_dir=tmp_path / "data", store_url=str(store)))
    assert mode(store) == 0o2770
    assert all(mode(p) & 0o070 == 0o070 for p in store.rglob("*") if p.is_dir())
    assert {mode(p) for p in store.rglob("*") if p.is_file()} == {0o440}
    assert open_to(0o007, store) == []
    assert open_to(0o077, tmp_path / "data") == []


def test_what_is_not_the_service_s_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    seeds.lay_database(data)
    (data / "notes").mkdir()
    for name in ("notes/mine.txt", "mine.txt"):
        (data / name).touch()
    spoil(data)
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o1777)
    permissions.mend(Settings(data_dir=data, store_url=str(public)), deep=True)
    assert mode(data) == 0o700
    assert mode(data / "mine.txt") == mode(data / "notes" / "mine.txt") == 0o644
    assert mode(public) == 0o1777
