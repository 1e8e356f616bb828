"""Whose filters are in a file: what the command reads, says and refuses."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pnc_core.config import Position
from pnc_core.data import ImageSet
from tests.unit.cli.conftest import Run
from tests.unit.pnc_core import nets

torch.set_num_threads(1)


@pytest.fixture
def source(run: Run) -> Path:
    """Weights of a source, beside them a full and a thin bundle cut from it, in the command's folder."""
    target = nets.network("cnn", 8, 1, classes="abc", width=8)
    made = nets.network("cnn", 8, 1, classes="def", width=8)
    nets.randomise(made[0].parameters())
    images = ImageSet(
        torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        torch.arange(60) % 6,
        tuple("abcdef"),
    )
    bundle = nets.hand_made(target, made, images, Position(target="blocks.1", source="blocks.1"), ("e", "d"))
    bundle.write("full.safetensors")
    bundle.thin().write("thin.safetensors")
    save_file(made[0].state_dict(), "source.safetensors")
    torch.save(made[0].state_dict(), "source.pth")
    return Path("source.safetensors")


def test_a_bundle_s_origin_is_found(run: Run, source: Path) -> None:
    done = run("modules", "origin", "full.safetensors", "--source", str(source), "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["found"]
    assert answer["matched"] == answer["channels"] > 0
    assert [layer["layer"] for layer in answer["layers"]] == ["blocks.2.0.weight", "blocks.3.0.weight"]
    shown = run("modules", "origin", "full.safetensors", "--source", "source.pth")
    assert "Filters of the source were found" in shown.stdout
    assert "blocks.3.0.weight" in shown.stdout


def test_another_network_is_not_the_origin(run: Run, source: Path) -> None:
    save_file({"x": torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(1))}, "other.safetensors")
    done = run("modules", "origin", "other.safetensors", "--source", str(source))
    assert done.exit_code == 0, done.output
    assert "No filters of the source were found" in done.stdout


def test_what_holds_no_filters_is_refused(run: Run, source: Path) -> None:
    thin = run("modules", "origin", "thin.safetensors", "--source", str(source))
    assert thin.exit_code == 1
    assert "got a thin one" in thin.stderr
    none = run("modules", "origin", "data.parquet", "--source", str(source))
    assert none.exit_code == 1
    assert "safetensors" in none.stderr
