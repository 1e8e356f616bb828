"""`pnc datasets push` lists images that it reads, files that it skips with the reasons, and oddities of the images."""

import csv
import re
from pathlib import Path

import pytest

from app.cli import pushing
from app.cli.screen import Screen
from pnc_client import Client, Dataset
from pnc_client.schemas.datasets import Findings
from pnc_client.sources import SourceError
from tests.unit.cli.conftest import Run
from tests.unit.client.describing import Described
from tests.unit.client.sources.makers import png


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two images, twelve photographs of a telephone, and notes."""
    root = tmp_path / "pets"
    (root / "cat").mkdir(parents=True)
    for name in ("1.png", "2.png"):
        (root / "cat" / name).write_bytes(png())
    for number in range(12):
        (root / "cat" / f"IMG_{number:02}.heic").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    return root


def test_ten_are_named_and_a_file_names_all(run: Run, pets: Path, tmp_path: Path) -> None:
    done = run("datasets", "push", str(pets))
    assert done.exit_code == 0, done.output
    said = " ".join(done.stderr.split())
    assert "1 files that are no images are left out (1: its name ends with .txt, as no image does)" in said
    assert "12 images are left out:" in said
    assert said.count("it is HEIC, which is not read; convert it to PNG or JPEG") == 10
    listed = re.search(r"all 13 are listed in (\S+)", said)
    assert listed is not None
    rows = list(csv.DictReader(Path(listed[1]).read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 13
    assert rows[0]["name"].startswith("cat/IMG_00.heic")
    run("datasets", "push", str(pets), "--skipped", str(tmp_path / "all.csv"))
    assert (tmp_path / "all.csv").read_text().count("HEIC") == 12


def test_strict_refuses_and_sends_nothing(run: Run, described: Described, pets: Path) -> None:
    done = run("datasets", "push", str(pets), "--strict")
    assert done.exit_code == 1
    assert "12 that would be left out, such as cat/IMG_00.heic" in " ".join(done.stderr.split())
    assert "create_upload" not in described.called


def test_the_result_says_what_is_odd(run: Run, pets: Path) -> None:
    said = " ".join(run("datasets", "push", str(pets)).stdout.split())
    assert "377 of 378 rows" in said
    assert "8 to 8 pixels, half at most 8" in said
    assert "3 of 378 images are exact copies of others" in said


def test_an_inspection_that_waits_or_failed_is_said(described: Described, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Dataset.model_validate(described.example("Dataset"))
    waiting = whole.model_copy(update={"inspection": "waiting", "findings": None, "inspected": 5})
    assert pushing.oddities(waiting) == {"inspection": "waiting; 5 of 378 images are decoded"}
    failed = waiting.model_copy(update={"inspection": "failed", "problem": {"detail": "expected x"}})
    assert pushing.oddities(failed) == {"inspection": "failed: expected x"}
    monkeypatch.setattr(pushing, "POLL_SECONDS", 0.0)
    with Client("http://localhost:8000", transport=described) as client:
        assert pushing.settled(client, Screen(), waiting).inspection == "done"
        monkeypatch.setattr(pushing, "PATIENCE", 0.0)
        assert pushing.settled(client, Screen(), waiting).inspection == "waiting"


def test_strict_archives_a_dataset_with_an_image_that_cannot_be_decoded(described: Described) -> None:
    whole = Dataset.model_validate(described.example("Dataset"))
    assert isinstance(whole.findings, Findings)
    with Client("http://localhost:8000", transport=described) as client:
        with pytest.raises(SourceError, match=r"got 1 that cannot be decoded, such as 7/scan\.png"):
            pushing.refuse_incomplete(client, whole)
        assert described.called == ["archive_dataset"]
        fine = whole.model_copy(update={"findings": whole.findings.model_copy(update={"unreadable": 0})})
        pushing.refuse_incomplete(client, fine)
    assert described.called == ["archive_dataset"]
