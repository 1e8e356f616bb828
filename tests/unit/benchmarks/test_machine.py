import json
from pathlib import Path

import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import gpu_check
from benchmarks.reports import machine
from pnc_core import devices
from pnc_core.config import CloneConfig, Position


@pytest.mark.parametrize(("quick", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_run_writes_down_what_auto_was(
    quick: bool, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: quick)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.resolve("auto", "auto", tmp_path, Console(quiet=True)) == ("cpu", precision)
    assert json.loads((tmp_path / machine.FILE).read_text())["precision"] == precision


def test_slow_bfloat16_is_spoken_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    console = Console(record=True, quiet=False, width=200)
    assert machine.resolve("cpu", "bfloat16", tmp_path, console) == ("cpu", "bfloat16")
    assert "bfloat16 is slower than float32 here" in console.export_text()


@pytest.mark.parametrize(("device", "precision"), [("cuda", "auto"), ("cpu", "half")])
def test_what_is_not_there_is_refused(
    device: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(typer.BadParameter, match="expected one"):
        machine.resolve(device, precision, tmp_path, Console(quiet=True))


def test_the_check_of_a_gpu_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    app = typer.Typer()
    app.command()(gpu_check.main)
    ended = CliRunner().invoke(app, [])
    assert ended.exit_code == 2
    assert "nothing to check: device: expected one that torch can use" in ended.stdout.replace("\n", " ")


def test_the_check_of_a_gpu_goes_through_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "SIZE", 16)
    monkeypatch.setattr(gpu_check, "PRESETS", {"clone fast": {"preset": "fast"}})
    position = Position(target="layer2.0", source="layer2.1")
    monkeypatch.setitem(gpu_check.USUAL, "position", position)
    rows = gpu_check.check("resnet20", "cpu")
    assert [row.path for row in rows] == ["clone fast", "attach, clone fast", *gpu_check.LATER]
    assert all(row.good for row in rows), rows


def test_the_check_of_a_gpu_has_every_kind_of_job() -> None:
    for settings in gpu_check.PRESETS.values():
        CloneConfig(classes=("d", "e"), **gpu_check.USUAL, **settings)
    assert {"clone fast", "clone joint", "clone refine", "clone without old images", "clone without labels"} <= set(
        gpu_check.PRESETS
    )
