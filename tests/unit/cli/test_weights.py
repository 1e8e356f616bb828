"""Files that torch saved become safetensors on the user's machine, and code in them is not run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app.local.pickled import read_pickled
from app.local.weights import as_safetensors
from pnc_core.errors import TensorFileError

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3).t(), "conv.bias": torch.zeros(2)}


class Trap:
    """What a hostile file holds: unpickling it would make a folder."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_the_tensors_are_the_same(tmp_path: Path, wrap: object) -> None:
    path = tmp_path / "net.pth"
    torch.save(wrap(STATE), path)  # type: ignore[operator]
    with as_safetensors(path) as file:
        assert file.suffix == ".safetensors"
        loaded = load_file(file)
    assert not file.exists()
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in STATE.items())


def test_parallel_training_left_its_prefix(tmp_path: Path) -> None:
    torch.save({f"module.{name}": tensor for name, tensor in STATE.items()}, tmp_path / "net.pt")
    assert read_pickled(tmp_path / "net.pt").keys() == STATE.keys()


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    shared = torch.ones(3)
    torch.save({"a": shared, "b": shared}, tmp_path / "net.pth")
    with as_safetensors(tmp_path / "net.pth") as file:
        assert load_file(file).keys() == {"a", "b"}


def test_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Trap()}, tmp_path / "net.pth")
    with pytest.raises(TensorFileError, match="state dict"):
        read_pickled(tmp_path / "net.pth")
    assert not Path("trapped").exists()


@pytest.mark.parametrize("saved", [[1, 2], {"epoch": 3}, {}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, saved: object) -> None:
    torch.save(saved, tmp_path / "net.pth")
    with pytest.raises(TensorFileError, match="names and tensors"):
        read_pickled(tmp_path / "net.pth")


def test_what_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(TensorFileError):
        read_pickled(tmp_path / "net.pth")


def test_safetensors_stay_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with as_safetensors(path) as file:
        assert file == path


def test_safetensors_are_sent_without_torch() -> None:
    program = (
        "import sys\nfor name in ('torch', 'safetensors', 'numpy'): sys.modules[name] = None\n"
        "from pathlib import Path\nfrom app.local.weights import as_safetensors\n"
        "with as_safetensors(Path('a.safetensors')) as file: print(file)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("a.safetensors", 0), done.stderr
