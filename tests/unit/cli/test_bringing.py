"""`pnc models identify` and `pnc models push` with a checkpoint of any kind."""

import json
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from app.local.bringing import Unfit, Wanted, brought
from pnc_core.errors import ConfigError
from pnc_core.graph.architectures import load_network
from pnc_core.identity import fingerprint
from tests.unit.cli.conftest import SEARCHED, Run
from tests.unit.pnc_core import nets

TEN = [str(i) for i in range(10)]
NETWORK, SPEC = nets.network("cifar/resnet20", classes=TEN, width=4)
STATE = nets.snapshot(NETWORK)
PIXELS = {"mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25"}
NAMED = {"architecture": "cifar/resnet20", "input_size": "3x32x32", "classes": "cifar10"}


def author(path: Path, state: dict[str, Tensor] = STATE) -> Path:
    """A file as the author of a repository would have saved it: in parallel, without counters."""
    kept = {f"module.{n}": t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    torch.save({"state_dict": kept, "best_prec1": 91.7}, path, _use_new_zipfile_serialization=False)
    return path


def bring(path: Path, *options: str, key_map: Path | None = None, **fields: str) -> tuple[Any, Any, list[str]]:
    notes: list[str] = []
    wanted = Wanted(path.with_suffix(".json"), fields, options, key_map=key_map)
    with brought(path, wanted, notes.append) as (spec, file):
        return spec, load_network(spec, file), notes


def test_a_published_file_needs_no_description(tmp_path: Path) -> None:
    spec, network, notes = bring(author(tmp_path / "resnet20.th"))
    assert (spec.architecture, spec.options) == ("cifar/resnet20", {"width": 4})
    assert (spec.input_size, spec.mean, spec.std) == ((3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert spec.classes[:3] == ("airplane", "automobile", "bird")
    assert notes == ["found cifar/resnet20 width=4 (akamaster/pytorch_resnet_cifar10)"]
    x = nets.pictures(2, SPEC)
    assert torch.equal(network(x), NETWORK(x))


def test_fields_of_the_command_go_before_those_of_the_repository(tmp_path: Path) -> None:
    names = ",".join("abcdefghij")
    spec, _, _ = bring(author(tmp_path / "a.th"), "shortcut=pool", classes=names, **PIXELS)
    assert (spec.classes, spec.mean) == (tuple("abcdefghij"), (0.5, 0.5, 0.5))
    assert spec.options == {"width": 4, "shortcut": "pool"}


def test_a_data_set_s_classes_are_taken_by_its_name(tmp_path: Path) -> None:
    spec, _, _ = bring(author(tmp_path / "a.th"), "width=4", **NAMED, **PIXELS)
    assert spec.classes[-1] == "truck"


def test_names_of_a_named_architecture_are_mended(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({n.replace("linear", "fc").replace("layer", "stage"): t for n, t in STATE.items()}, path)
    spec, network, notes = bring(path, "width=4", **NAMED, **PIXELS)
    assert notes[-1].endswith("equal shapes in equal order")
    assert fingerprint(network) == fingerprint(NETWORK)
    assert spec.options == {"width": 4}


@SEARCHED
def test_a_key_map_renames_and_leaves_out(tmp_path: Path, searched: str) -> None:
    path, keys = tmp_path / "a.pt", tmp_path / "keys.json"
    torch.save({"aux.weight": torch.ones(3, 3), **{n.replace("linear", "top"): t for n, t in STATE.items()}}, path)
    with pytest.raises(Unfit, match="expected one architecture for these tensors, got none"):
        bring(path)
    keys.write_text(json.dumps({"top": "linear", "aux": None}))
    _, network, _ = bring(path, key_map=keys)
    assert fingerprint(network) == fingerprint(NETWORK)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "expected an object with new names by old ones"),
        ('{"linear": 3}', "expected an object with new names by old ones"),
        ('{"layer1": "x", "layer2": "x"}', "got one name for several"),
    ],
)
def test_a_bad_key_map_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        bring(author(tmp_path / "a.th"), key_map=tmp_path / "keys.json")


def test_fields_that_nobody_published_have_to_be_given(tmp_path: Path) -> None:
    network, spec = nets.network("cifar/wrn16", classes="abcd", widen=1)
    torch.save(network.state_dict(), tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=r"with 4 classes: expected classes, mean, std .* --classes --mean --std"):
        bring(tmp_path / "a.pt")
    made, loaded, _ = bring(tmp_path / "a.pt", classes="a,b,c,d", **PIXELS)
    assert (made.architecture, fingerprint(loaded)) == (spec.architecture, fingerprint(network))


@torch.no_grad()
def test_branches_are_fused_where_the_network_is_wanted_so(tmp_path: Path) -> None:
    network, spec = nets.network("cifar/repvgg-a0", classes=TEN, width=8)
    names = {"identity": "rbr_identity", "dense": "rbr_dense", "point": "rbr_1x1"}
    theirs = {".".join(names.get(part, part) for part in n.split(".")): t for n, t in network.state_dict().items()}
    torch.save(theirs, tmp_path / "a.pt")
    named = {**NAMED, "architecture": "cifar/repvgg-a0"}
    made, single, notes = bring(tmp_path / "a.pt", "width=8", "fused=true", **named, **PIXELS)
    assert made.options == {"width": 8, "fused": True}
    assert notes == ["fused the branches of each block into one convolution"]
    x = nets.pictures(2, spec)
    assert float((single(x) - network(x)).abs().max()) < 1e-4 * float(network(x).abs().max())


def test_safetensors_that_fit_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(STATE, path)
    path.with_suffix(".json").write_text(json.dumps({
        "architecture": "cifar/resnet20", "options": {"width": 4}, "classes": TEN, "input_size": [3, 32, 32],
        "mean": [0.5] * 3, "std": [0.5] * 3,
    }))  # fmt: skip
    with brought(path, Wanted(path.with_suffix(".json"), {}), print) as (_, file):
        assert file == path


def test_identify_prints_the_fits_and_the_command(run: Run, tmp_path: Path) -> None:
    done = run("models", "identify", str(author(tmp_path / "resnet20.th")))
    assert done.exit_code == 0, done.output
    assert "cifar/resnet20 width=4" in done.stdout
    assert "akamaster/pytorch_resnet_cifar10" in done.stdout
    assert "fit shortcut=pad-end, shortcut=pool as well" in done.stdout
    assert "pnc models push NAME resnet20.th takes cifar/resnet20 width=4" in done.stdout


def test_identify_gives_programs_the_key_map(run: Run, tmp_path: Path) -> None:
    done = run("models", "identify", str(author(tmp_path / "resnet20.th")), "--json")
    seen = json.loads(done.stdout)
    assert (seen["chosen"], seen["classes"], seen["tensors"]) == (0, 10, len(STATE))
    assert seen["fits"][0]["key_map"] == {}
    assert seen["fits"][1]["architecture"] == "resnet20"
    assert seen["fits"][1]["key_map"]["linear.weight"] == "fc.weight"


@pytest.mark.parametrize("file", ["text", "nothing"])
def test_a_file_that_is_none_is_refused_in_one_line(run: Run, tmp_path: Path, file: str) -> None:
    (tmp_path / "a.pth").write_bytes(b"hello" if file == "text" else b"")
    done = run("models", "identify", str(tmp_path / "a.pth"))
    assert done.exit_code == 1
    assert "expected weights from torch.save or safetensors, got" in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_push_sends_a_checkpoint_that_fits(run: Run, tmp_path: Path) -> None:
    done = run("models", "push", "low", str(author(tmp_path / "resnet20.th")), "--no-wait")
    assert done.exit_code == 0, done.output
    assert "found cifar/resnet20 width=4 (akamaster/pytorch_resnet_cifar10)" in done.output


@SEARCHED
def test_a_push_that_fails_shows_the_nearest_and_sends_nothing(run: Run, tmp_path: Path, searched: str) -> None:
    state = {n: t for n, t in STATE.items() if n != "layer3.2.bn2.bias"}
    options = [
        "--architecture",
        "cifar/resnet20",
        "--set",
        "width=4",
        "--input-size",
        "3x32x32",
        "--classes",
        "cifar10",
    ]
    pixels = ["--mean", PIXELS["mean"], "--std", PIXELS["std"]]
    done = run("models", "push", "low", str(author(tmp_path / "a.th", state)), *options, *pixels)
    assert done.exit_code == 1
    assert "missing layer3.2.bn2.bias; unexpected none" in done.output
    assert "nearest" in done.output
    assert "cifar/resnet20 width=4" in done.output


def test_weights_are_plain_or_ema(run: Run, tmp_path: Path) -> None:
    average = {n: t * 2 if t.is_floating_point() else t for n, t in STATE.items()}
    torch.save({"model": STATE, "ema": average}, tmp_path / "a.pt")
    done = run("models", "identify", str(tmp_path / "a.pt"))
    assert "took the plain weights (model); --weights ema takes the ema ones" in done.output
    done = run("models", "identify", str(tmp_path / "a.pt"), "--weights", "ema")
    assert "took the ema weights (ema)" in done.output
    assert run("models", "identify", str(tmp_path / "a.pt"), "--weights", "mean").exit_code == 2


def test_without_torch_described_safetensors_are_sent(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    known = util.find_spec
    monkeypatch.setattr("app.cli.weights.find_spec", lambda name: None if name == "torch" else known(name))
    monkeypatch.setitem(sys.modules, "app.local.bringing", None)
    done = run("models", "push", "digits", "weights.safetensors", "--no-wait")
    assert done.exit_code == 0, done.output
