"""Files of training scripts: the weights of one network come out, or one line says what to do."""

import argparse
import gzip
import pickle  # noqa: TID251 - it writes a file that is refused
import tarfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from pnc_core.errors import PncError, TensorFileError, WeightsMismatch
from pnc_core.graph.architectures import load_network
from pnc_core.networks.checkpoint import read_checkpoint
from pnc_core.networks.files import as_safetensors, kind_of
from tests.unit.pnc_core import nets

NETWORK, SPEC = nets.network("resnet20", 16, width=4)
STATE = nets.snapshot(NETWORK)
AVERAGE = {name: t * 1.5 if t.is_floating_point() else t for name, t in STATE.items()}
UNCOUNTED = {name: t for name, t in STATE.items() if not name.endswith("num_batches_tracked")}
HALF = {name: t.half() if t.is_floating_point() else t for name, t in STATE.items()}
BRAIN = {name: t.bfloat16() if t.is_floating_point() else t for name, t in STATE.items()}
DOUBLE = {name: t.double() if t.is_floating_point() else t for name, t in STATE.items()}
SCRIPT = argparse.Namespace(lr=0.1, model="resnet20")


def pre(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def parameters() -> OrderedDict[str, Any]:
    return OrderedDict((n, nn.Parameter(t) if t.is_floating_point() else t) for n, t in STATE.items())


def views() -> dict[str, Tensor]:
    """Two tensors that share their memory."""
    both = torch.cat([STATE["stem.1.weight"], STATE["stem.1.bias"]])
    return {**STATE, "stem.1.weight": both[:4], "stem.1.bias": both[4:]}


def channels_last() -> dict[str, Tensor]:
    return {n: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in STATE.items()}


def widened(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


LOADED: dict[str, tuple[Any, dict[str, Tensor]]] = {
    "a state dict": (STATE, STATE),
    "an ordered dict": (OrderedDict(STATE), STATE),
    "net, acc and epoch": ({"net": STATE, "acc": 91.2, "epoch": 3}, STATE),
    "state_dict of DataParallel": ({"state_dict": pre("module."), "best_prec1": 92.1}, STATE),
    "model, its average and arguments": (
        {"model": STATE, "optimizer": {}, "args": SCRIPT, "model_ema": pre("module.", AVERAGE)},
        STATE,
    ),
    "state_dict, state_dict_ema and arch": ({"arch": "x", "state_dict": STATE, "state_dict_ema": AVERAGE}, STATE),
    "params and params_ema": ({"params_ema": AVERAGE, "params": STATE}, STATE),
    "an average alone": ({"ema": {"module": AVERAGE, "decay": 0.99}, "epoch": 3}, AVERAGE),
    "an average beside the network in one dict": ({**pre("model."), **pre("model_ema.", AVERAGE)}, STATE),
    "numpy's float": ({"state_dict": STATE, "best_acc": numpy.float64(93.1)}, STATE),
    "numpy's whole number and an array": ({"model": STATE, "best": numpy.int64(3), "loss": numpy.ones(2)}, STATE),
    "model. of Lightning": ({"state_dict": pre("model."), "epoch": 1, "global_step": 3}, STATE),
    "net. and the weights of a loss": ({"state_dict": {**pre("net."), "criterion.weight": torch.ones(5)}}, STATE),
    "_orig_mod. of torch.compile": (pre("_orig_mod."), STATE),
    "module._orig_mod.": ({"model": pre("module._orig_mod.")}, STATE),
    "_orig_mod.module.": (pre("_orig_mod.module."), STATE),
    "module.module.": (pre("module.module."), STATE),
    "parts compiled one by one": ({n.replace("layer1.", "layer1._orig_mod."): t for n, t in STATE.items()}, STATE),
    "backbone. with a head beside it": (
        {n if n.startswith("fc.") else f"backbone.{n}": t for n, t in STATE.items()},
        STATE,
    ),
    "counters of thop": ({**STATE, "total_ops": torch.zeros(1), "stem.0.total_params": torch.zeros(1)}, STATE),
    "an averaged model of torch": ({**pre("module."), "n_averaged": torch.tensor(5)}, STATE),
    "no num_batches_tracked": (UNCOUNTED, {n: t * 0 if n not in UNCOUNTED else t for n, t in STATE.items()}),
    "float16": (HALF, widened(HALF)),
    "bfloat16": (BRAIN, widened(BRAIN)),
    "float64": (DOUBLE, STATE),
    "numpy arrays": ({name: t.numpy() for name, t in STATE.items()}, STATE),
    "parameters": (parameters(), STATE),
    "channels last": (channels_last(), STATE),
    "views of one memory": (views(), STATE),
    "model as a string": ({"state_dict": STATE, "model": "resnet20"}, STATE),
    "state_dict in model": ({"model": {"state_dict": STATE}}, STATE),
    "model_state": ({"model_state": STATE}, STATE),
    "model_state_dict": ({"model_state_dict": STATE, "optimizer_state_dict": {}}, STATE),
    "weights": ({"weights": STATE}, STATE),
    "numbers beside the tensors": ({**STATE, "epoch": 3}, STATE),
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", LOADED)
def test_the_network_of_a_checkpoint_is_loaded(tmp_path: Path, name: str, legacy: bool) -> None:
    saved, expected = LOADED[name]
    torch.save(saved, tmp_path / "any.name", _use_new_zipfile_serialization=not legacy)
    with as_safetensors(tmp_path / "any.name") as file:
        loaded = load_network(SPEC, file).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in expected.items())
    assert not file.exists()


@pytest.mark.parametrize("suffix", [".th", ".pt", ".pth", ".pth.tar", ".pkl", ".ckpt", ".bin", ".safetensors", ""])
def test_the_suffix_does_not_count(tmp_path: Path, suffix: str) -> None:
    torch.save(STATE, tmp_path / f"one{suffix}")
    safetensors.torch.save_file(STATE, tmp_path / f"two{suffix}")
    for name in ("one", "two"):
        assert read_checkpoint(tmp_path / f"{name}{suffix}").tensors.keys() == STATE.keys()


@pytest.mark.parametrize("state", [UNCOUNTED, BRAIN, pre("module.")], ids=["uncounted", "bfloat16", "module."])
def test_safetensors_are_put_right_as_well(tmp_path: Path, state: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    with as_safetensors(tmp_path / "a.safetensors") as file:
        assert file != tmp_path / "a.safetensors"
        assert load_network(SPEC, file).state_dict().keys() == STATE.keys()


def test_safetensors_of_a_network_stay_where_they_are(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "a.bin")
    with as_safetensors(tmp_path / "a.bin") as file:
        assert file == tmp_path / "a.bin"


@pytest.mark.parametrize(
    ("saved", "take", "expected", "note"),
    [
        ({"model": STATE, "ema": AVERAGE}, None, STATE, "took the plain weights (model); --weights ema"),
        ({"model": STATE, "ema": AVERAGE}, "ema", AVERAGE, "took the ema weights (ema); --weights plain"),
        ({"ema": AVERAGE}, None, AVERAGE, "took the ema weights (ema): there are no others"),
        (HALF, None, widened(HALF), "float16 widened to float32"),
        (DOUBLE, None, STATE, "float64 narrowed to float32"),
        ({**STATE, "total_ops": torch.zeros(1)}, None, STATE, "left out total_ops"),
        ({**STATE, "epoch": 3}, None, STATE, "left out epoch, no tensors"),
    ],
)  # fmt: skip
def test_each_choice_and_change_is_noted(
    tmp_path: Path, saved: Any, take: Any, expected: dict[str, Tensor], note: str
) -> None:
    torch.save(saved, tmp_path / "a.pt")
    read = read_checkpoint(tmp_path / "a.pt", take)
    assert [text[: len(note)] for text in read.notes] == [note]
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in expected.items())


def test_the_order_of_the_network_is_kept_and_counters_stand_in_their_places(tmp_path: Path) -> None:
    torch.save(UNCOUNTED, tmp_path / "a.pt")
    safetensors.torch.save_file(STATE, tmp_path / "b.pt")
    read = read_checkpoint(tmp_path / "a.pt")
    assert (list(read.tensors), read.ordered) == (list(STATE), True)
    assert not read_checkpoint(tmp_path / "b.pt").ordered


def test_the_name_that_a_script_noted_is_kept(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "arch": "resnet20"}, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt").architecture == "resnet20"


class Config:
    """An object of a training script's own class."""


class Trap:
    """An object that runs a function where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.mkdir, (Path("trapped"),)  # type: ignore[return-value]


class Shell:
    """An object that starts a shell where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch trapped",)


REFUSED: dict[str, tuple[Any, str]] = {
    "a whole module": (NETWORK, r"an object of \S+CifarResNet; load the file in your own code and save"),
    "an object of a script": ({"state_dict": STATE, "config": Config()}, r"got an object of \S*Config; load the file"),
    "a function of the standard library": ({"state_dict": STATE, "x": Trap()}, "got an object of"),
    "a defaultdict": ({"model": STATE, "history": defaultdict(list, {"loss": [1.0]})}, "collections.defaultdict; load"),
    "a shell": ({"state_dict": STATE, "x": Shell()}, r"got an object of \w+.system"),
    "a list of tensors": (list(STATE.values()), "expected names and tensors, got an object of list; save"),
    "one tensor": (torch.ones(3), "expected names and tensors, got an object of Tensor"),
    "an optimizer alone": ({"optimizer": {"lr": 0.1}}, r"got a dict of \['optimizer'\]; save model.state_dict"),
    "an empty dict": ({}, r"got a dict of \[\]"),
    "sparse tensors": ({**STATE, "fc.weight": STATE["fc.weight"].to_sparse()}, "'fc.weight': expected .* dense form"),
    "complex tensors": ({**STATE, "fc.weight": STATE["fc.weight"].cfloat()}, r"'fc.weight': expected real numbers"),
    "a head of other classes": ({**STATE, "fc.weight": torch.zeros(1000, 16)}, r"expected .* \(3, 16\), got"),
    "nan": ({**STATE, "fc.bias": torch.full((3,), float("nan"))}, "'fc.bias' expected finite numbers"),
    "an infinite variance": ({**STATE, "stem.1.running_var": torch.full((4,), float("inf"))}, "expected finite"),
    "a negative variance": ({**STATE, "stem.1.running_var": torch.full((4,), -1.0)}, "variances of 0 or more, got -1"),
    "a tensor missing": ({n: t for n, t in STATE.items() if n != "fc.bias"}, r"missing \['fc.bias'\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_without_one_network_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved, message = REFUSED[name]
    torch.save(saved, tmp_path / "a.pth")
    with (
        pytest.raises((TensorFileError, WeightsMismatch), match=message) as caught,
        as_safetensors(tmp_path / "a.pth") as file,
    ):
        load_network(SPEC, file)
    assert str(caught.value).isprintable()
    assert not Path("trapped").exists()


def test_weights_that_are_not_there_cannot_be_taken(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    with pytest.raises(TensorFileError, match="expected ema weights, got plain ones alone; leave --weights out"):
        read_checkpoint(tmp_path / "a.pth", "ema")


def _tar(path: Path) -> None:
    (path.parent / "inner").write_bytes(b"x")
    with tarfile.open(path, "w") as archive:
        archive.add(path.parent / "inner", "inner")


def _script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), str(path))


def _half(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _half_legacy(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda p: p.write_bytes(b"not a checkpoint"), "begins with 6e 6f 74 .*; save model.state_dict"),
    "nothing": (lambda p: p.write_bytes(b""), "got an empty file; save or download it again"),
    "a pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "a pickle that torch.save did not write; save"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"x" * 99)), "got a gzip archive; unpack it first"),
    "tar": (_tar, "got a tar archive; unpack it first"),
    "HDF5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "HDF5"),
    "a pointer": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "run git lfs pull"),
    "a page": (lambda p: p.write_text("<!DOCTYPE html><html></html>"), "got a web page; download the file itself"),
    "TorchScript": (_script, "got a TorchScript program; save torch.jit.load"),
    "numpy's archive": (
        lambda p: numpy.savez(p.with_suffix(".npz"), a=numpy.ones(3)) or p.with_suffix(".npz").rename(p),
        "another zip archive; save model.state",
    ),
    "half a file": (_half, "expected a whole file, got a damaged one"),
    "half a legacy file": (_half_legacy, "that does not read .*; save it again"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit, which writes one of the files
def test_another_file_is_refused_before_anything_is_sent(tmp_path: Path, name: str) -> None:
    make, message = FILES[name]
    make(tmp_path / "a.pth")
    with pytest.raises(TensorFileError, match=message) as caught, as_safetensors(tmp_path / "a.pth"):
        pass
    assert str(caught.value).isprintable()


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kind_of(tmp_path / "none.pth")


def test_the_tables_have_enough_cases_and_no_message_of_torch_alone() -> None:
    assert len(LOADED) + len(REFUSED) + len(FILES) >= 60
    assert issubclass(TensorFileError, PncError)
