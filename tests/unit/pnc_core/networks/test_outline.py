"""The outline of a checkpoint leads to the same tensors as the checkpoint itself."""

from typing import Any

import pytest
import torch

from pnc_core.errors import TensorFileError
from pnc_core.networks.checkpoint import read_checkpoint
from pnc_core.networks.outline import read_outline


def outlined(value: Any, found: list[torch.Tensor]) -> dict[str, Any]:
    """A value as the browser describes it."""
    if isinstance(value, torch.Tensor):
        found.append(value)
        return {"tensor": [len(found) - 1, str(value.dtype).removeprefix("torch."), list(value.shape)]}
    if isinstance(value, dict):
        return {"map": [[name, outlined(inner, found)] for name, inner in value.items()]}
    return {"text": value} if isinstance(value, str) else {"other": type(value).__name__}


def document(value: Any, kind: str = "zip") -> dict[str, Any]:
    return {"name": "net.pth", "kind": kind, "saved": outlined(value, [])}


@pytest.fixture
def saved() -> dict[str, Any]:
    layers = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).half()
    state = {f"module.{name}": tensor for name, tensor in layers.state_dict().items() if "tracked" not in name}
    return {"state_dict": {**state, "n_averaged": torch.tensor(1)}, "epoch": 3, "arch": "tiny"}


def test_an_outline_finds_the_tensors_that_the_file_has(saved: dict[str, Any], tmp_path: Any) -> None:
    torch.save(saved, tmp_path / "net.pth")
    read, found = read_checkpoint(tmp_path / "net.pth"), read_outline(document(saved))
    assert list(found.shapes.items()) == [(name, tuple(tensor.shape)) for name, tensor in read.tensors.items()]
    assert (found.notes, found.ordered, found.architecture) == (read.notes, read.ordered, "tiny")
    tensors: list[torch.Tensor] = []
    outlined(saved, tensors)
    for name, place in found.places.items():
        assert (place is None) == name.endswith("num_batches_tracked")
        if place is not None:
            assert torch.equal(tensors[place].float(), read.tensors[name].float())


def test_safetensors_have_lost_the_order_of_the_network(saved: dict[str, Any]) -> None:
    assert read_outline(document(saved["state_dict"], "safetensors")).ordered is False


def test_a_whole_pickled_network_is_refused_by_its_class() -> None:
    with pytest.raises(TensorFileError, match="an object of ResNet"):
        read_outline({"name": "net.pth", "kind": "zip", "saved": {"other": "models.ResNet"}})


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"tensor": [0, "float32", [1] * 9]},
        {"tensor": [0, "float32", [-1]]},
        {"tensor": [0, "float32", [2.5]]},
        {"tensor": [0, "complex64", [1]]},
        {"tensor": ["x", "float32", [1]]},
        {"tensor": [0]},
        {"nothing": 1},
        {"map": [["a"]]},
    ],
)
def test_a_malformed_outline_is_refused(value: Any) -> None:
    inside = {"map": [["weight", value]]}
    with pytest.raises(TensorFileError, match="expected the outline of a file of weights"):
        read_outline({"name": "net.pth", "kind": "zip", "saved": inside})


def test_an_outline_that_is_nested_too_deeply_is_refused() -> None:
    value: dict[str, Any] = {"tensor": [0, "float32", [1]]}
    for _ in range(20):
        value = {"map": [["model", value]]}
    with pytest.raises(TensorFileError):
        read_outline({"name": "net.pth", "kind": "zip", "saved": value})
