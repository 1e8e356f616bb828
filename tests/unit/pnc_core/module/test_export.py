from pathlib import Path

import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from app.cli import app
from pnc_core.config import Position
from pnc_core.errors import NetworkError
from pnc_core.images import preprocess
from pnc_core.module import export
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach
from pnc_core.module.export import to_onnx, to_program
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

MIDDLE = Position(target="blocks.1", source="blocks.1")


@pytest.fixture
def pixels(pair: Pair) -> torch.Tensor:
    return pair.test.images[:7]


@pytest.mark.parametrize("kinds", [(), ("5",), ("5", "6", "8")])
def test_a_program_answers_as_the_network_does_for_any_number_of_images(
    pair: Pair, by_hand: dict[str, Bundle], pixels: torch.Tensor, kinds: tuple[str, ...]
) -> None:
    network = pair.target[0]
    for bundle in by_hand.values():
        if bundle.manifest.classes[0] in kinds:
            network = attach(network, bundle)
    before = {name: tensor.clone() for name, tensor in pair.target[0].state_dict().items()}
    run = to_program(network, pair.target[1]).module()
    x = preprocess(pixels, pair.target[1])
    with torch.no_grad():
        for count in (1, 3, 7):
            assert torch.allclose(run(x[:count]), network(x[:count]), atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pair.target[0].state_dict().items())


def test_a_strict_module_is_exported_with_its_shutter(pair: Pair, pixels: torch.Tensor) -> None:
    seen = set()
    for bias in (-1e6, 0.0, 1e6):
        bundle = nets.hand_made(pair.target, pair.source, pair.images, MIDDLE, ("9",), "router", locality_gate=bias)
        network = attach(pair.target[0], bundle)
        x = preprocess(pixels, pair.target[1])
        with torch.no_grad():
            assert torch.allclose(to_program(network, pair.target[1]).module()(x), network(x), atol=1e-4)
            seen.add(bool((network(x)[:, 5] < -1e3).all()))
    assert seen == {True, False}


@pytest.mark.parametrize("takes_pixels", [False, True])
def test_an_onnx_file_answers_as_the_network_does(
    pair: Pair, by_hand: dict[str, Bundle], pixels: torch.Tensor, tmp_path: Path, takes_pixels: bool
) -> None:
    network, path = attach(pair.target[0], by_hand["joint"]), tmp_path / "composed.onnx"
    to_onnx(network, pair.target[1], path, pixels=takes_pixels)
    assert [file.name for file in tmp_path.iterdir()] == ["composed.onnx"]
    x = preprocess(pixels, pair.target[1])
    (got,) = onnxruntime.InferenceSession(path).run(None, {"images": (pixels if takes_pixels else x).numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(got), network(x), atol=1e-4)


def test_train_mode_is_refused_and_left_as_it_is(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    composed = attach(pair.target[0], by_hand["affine"])
    for part in (pair.target[0].blocks[1], composed.clones[0].head):
        part.train()
        try:
            with pytest.raises(NetworkError, match=r"expected eval mode everywhere, got train mode; call \.eval\(\)"):
                to_program(composed, pair.target[1])
            assert part.training
        finally:
            part.eval()


def test_an_export_that_answers_otherwise_is_not_handed_out(
    pair: Pair, by_hand: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(NetworkError, match="off"):
        to_onnx(attach(pair.target[0], by_hand["affine"]), pair.target[1], tmp_path / "composed.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_either_kind(pair: Pair, by_hand: dict[str, Bundle], tmp_path: Path) -> None:
    import safetensors.torch

    safetensors.torch.save_file(pair.target[0].state_dict(), tmp_path / "target.safetensors")
    by_hand["router"].write(tmp_path / "bundle.safetensors")
    common = ["export", str(tmp_path / "bundle.safetensors"), "--target", str(tmp_path / "target.safetensors"), "--out"]
    answer = CliRunner().invoke(app, [*common, str(tmp_path / "whole.onnx")])
    assert answer.exit_code == 0, answer.output
    assert (tmp_path / "whole.onnx").stat().st_size > 1000
    answer = CliRunner().invoke(app, [*common, str(tmp_path / "whole.pt2"), "--pixels"])
    assert answer.exit_code == 0, answer.output
    run = torch.export.load(tmp_path / "whole.pt2").module()
    assert run(pair.test.images[:3]).shape == (3, 6)
    refused = CliRunner().invoke(app, [*common, str(tmp_path / "whole.txt")])
    assert refused.exit_code == 2
