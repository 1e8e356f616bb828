"""Whose filters are in a file, and under whose mark: what the commands read, say and refuse."""

import dataclasses
import json
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from app.demo import png_rows
from pnc_client.parquet import write_parquet
from pnc_core.config import Position
from pnc_core.images import ImageSet
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
    save_file(target[0].state_dict(), "target.safetensors")
    for name, (_, spec) in {"source": made, "target": target}.items():
        Path(f"{name}.json").write_text(json.dumps(dataclasses.asdict(spec)))
    write_parquet(Path("images.parquet"), png_rows(images), images.classes)
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
    assert "got a thin bundle" in thin.stderr
    none = run("modules", "origin", "data.parquet", "--source", str(source))
    assert none.exit_code == 1
    assert "safetensors" in none.stderr


def test_a_key_is_its_owner_s_alone_and_never_overwritten(run: Run) -> None:
    made = run("keys", "mark", "own.mark", "--json")
    assert made.exit_code == 0, made.output
    assert stat.S_IMODE(Path("own.mark").stat().st_mode) == 0o600
    key = Path("own.mark").read_text()
    assert key.strip() not in made.output
    assert json.loads(made.stdout)["commitment"].startswith("sha256:")
    assert run("keys", "mark", "own.mark").exit_code == 1
    assert Path("own.mark").read_text() == key


def test_a_file_that_was_cut_without_the_key_proves_nothing(run: Run, source: Path) -> None:
    run("keys", "mark", "own.mark")
    done = run("modules", "prove", "full.safetensors", "--source", str(source), "--mark", "own.mark", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert not answer["proved"]
    assert answer["channels"] == 16 + 32
    assert 0 < answer["p_value"] <= 1


def test_a_clone_with_a_mark_says_how_far_the_mark_goes(run: Run, source: Path) -> None:
    run("keys", "mark", "own.mark")
    position = '{"target": "blocks.1", "source": "blocks.1"}'
    settings = ["--preset", "fast", "--set", f"position={position}", "--set", "views=1", "--out", "marked.safetensors"]
    cloned = ["clone", "target.safetensors", str(source), "images.parquet", "-c", "e", "-c", "d", *settings]
    done = run(*cloned, "--mark", "own.mark", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)["mark"]
    assert said["channels"] == 16 + 32
    proof = run("modules", "prove", "marked.safetensors", "--source", str(source), "--mark", "own.mark", "--json")
    found = json.loads(proof.stdout)
    assert {name: found[name] for name in said} == said
    assert "proves nothing (p" in run(*cloned, "--mark", "own.mark").stderr  # 48 channels are few
    assert json.loads(run(*cloned, "--json").stdout)["mark"] is None


def test_what_is_no_key_is_refused(run: Run, source: Path) -> None:
    for text in ("", "abc", "zz" * 32, "00" * 31):
        Path("bad.mark").write_text(text)
        done = run("modules", "prove", "full.safetensors", "--source", str(source), "--mark", "bad.mark")
        assert done.exit_code == 2
        assert "expected" in done.stderr
