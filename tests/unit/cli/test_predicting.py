"""Predictions for files and folders: every image is answered or named, on the screen and in tables."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer

from app.cli.predicting import predict_files
from app.cli.screen import Exit, Screen
from pnc_client.schemas.deployments import ClassScore, ImagePrediction
from pnc_core.errors import ConfigError

CAT = [ClassScore(name="cat", probability=0.75, logit=2.0), ClassScore(name="dog", probability=0.25, logit=0.9)]


class FakeDeployments:
    """Answers `cat` for every file, and a problem for files whose name begins with `bad`."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def predict_all(
        self, name: str, images: Iterable[Path], *, modules: object, top: int | None
    ) -> Iterator[tuple[Path, ImagePrediction]]:
        for image in images:
            self.asked.append(image.name)
            bad = image.name.startswith("bad")
            problem = f"{image.name}: expected an image, got text" if bad else None
            yield image, ImagePrediction(name=image.name, classes=[] if bad else CAT[:top], problem=problem)


class FakeClient:
    def __init__(self) -> None:
        self.deployments = FakeDeployments()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    (made / "inner").mkdir(parents=True)
    for name in ("b.png", "inner/a.JPG", "notes.txt", ".hidden.png", "c.webp"):
        (made / name).write_bytes(b"x")
    return made


def _run(given: list[Path], out: Path | None = None, *, as_json: bool = False) -> list[str]:
    client = FakeClient()
    predict_files(client, Screen(as_json), "pets", given, None, None, out)  # type: ignore[arg-type]
    return client.deployments.asked


def test_a_folder_is_read_with_its_folders_and_what_is_left_out_is_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run([folder]) == ["b.png", "c.webp", "a.JPG"]
    shown = capsys.readouterr()
    assert shown.out.count("0.7500") == 3
    assert "1 other files" in shown.err


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_has_a_row_for_every_file_also_for_a_bad_one(folder: Path, tmp_path: Path, ending: str) -> None:
    (folder / "bad.png").write_bytes(b"x")
    out = tmp_path / f"table.{ending}"
    with pytest.raises(typer.Exit) as ended:
        _run([folder, folder / "b.png"], out)
    assert ended.value.exit_code == Exit.NOT_SUCCEEDED
    text = out.read_text() if ending == "csv" else ""
    rows = list(csv.DictReader(text.splitlines())) if text else pq.read_table(out).to_pylist()
    assert [Path(row["file"]).name for row in rows] == ["b.png", "bad.png", "c.webp", "a.JPG", "b.png"]
    assert [row["class"] or None for row in rows] == ["cat", None, "cat", "cat", "cat"]
    assert float(rows[0]["probability"]) == 0.75
    assert rows[1]["problem"] == "bad.png: expected an image, got text"


def test_json_has_all_classes_of_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run([folder / "b.png", folder / "c.webp"], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [Path(one["file"]).name for one in found] == ["b.png", "c.webp"]
    assert [score["name"] for score in found[0]["classes"]] == ["cat", "dog"]


def test_a_table_of_another_kind_and_one_over_an_image_are_refused_before_any_request(folder: Path) -> None:
    for out, error in ((folder / "t.xlsx", typer.BadParameter), (folder / "missing" / "t.csv", ConfigError)):
        with pytest.raises(error):
            _run([folder], out)
    before = (folder / "b.png").rename(folder / "b.csv")
    with pytest.raises(ConfigError, match="not an input"):
        _run([before], before)


def test_a_folder_without_images_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(typer.Exit) as ended:
        _run([tmp_path])
    assert ended.value.exit_code == Exit.FAILED
    assert "expected at least one image file" in capsys.readouterr().err
