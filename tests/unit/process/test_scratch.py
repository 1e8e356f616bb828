"""TMPDIR is made where a volume hides that of the image."""

from pathlib import Path

import pytest

from app.errors import Misconfigured
from app.process.scratch import make_scratch


def test_it_is_made_with_its_parents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "data/tmp"))
    for _ in range(2):
        make_scratch()
        assert (tmp_path / "data/tmp").is_dir()


def test_without_the_variable_nothing_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TMPDIR", raising=False)
    make_scratch()
    monkeypatch.setenv("TMPDIR", "")
    make_scratch()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file/tmp"))
    with pytest.raises(Misconfigured, match=r"TMPDIR: expected a directory.*file/tmp"):
        make_scratch()
