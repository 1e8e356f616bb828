"""Files are written atomically."""

from pathlib import Path

import pytest

from pnc_core.files import written_whole


def test_the_file_is_there_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with written_whole(path) as half:
        half.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_who_is_stopped_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        _write_and_stop(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_body_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "a.bin"):
        pass


def test_two_can_write_one_file_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with written_whole(path) as first:
        first.write_bytes(b"first")
        with written_whole(path) as second:
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.bin", tmp_path / "plain.bin"
    plain.touch()
    with written_whole(path) as half:
        half.write_bytes(b"new")
    assert path.stat().st_mode == plain.stat().st_mode


def _write_and_stop(path: Path) -> None:
    with written_whole(path) as half:
        half.write_bytes(b"ne")
        raise KeyboardInterrupt
