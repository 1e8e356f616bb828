import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from pnc_core.errors import ConfigError, NetworkError, TensorFileError, UnknownArchitecture, WeightsMismatch
from pnc_core.graph.architectures import (
    architectures,
    build_network,
    check_weights,
    load_network,
    load_weights,
    timm_architectures,
)
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.networks.options import MAX_WIDTH
from tests.unit.pnc_core import nets

CNN = nets.spec("cnn", 8, 1, width=4)


@pytest.mark.parametrize("family", ["resnet20", "cnn", "vgg", "torchvision/resnet18", "torchvision/swin_t"])
def test_a_network_is_built_in_eval_mode_with_one_logit_a_class(family: str) -> None:
    network, spec = nets.network(family, 32, classes="abcd")
    assert not any(module.training for module in network.modules())
    with torch.no_grad():
        assert network(nets.pictures(2, spec)).shape == (2, 4)


def test_every_family_of_the_list_builds_on_the_meta_device() -> None:
    assert {"resnet20", "resnet32", "resnet56", "cnn", "vgg"} < set(architectures())
    assert sum(name.startswith("torchvision/") for name in architectures()) >= 80
    for name in nets.families():
        network = build_network(nets.spec(name, 224), device="meta")
        assert all(t.is_meta for t in network.state_dict().values()), name


@pytest.mark.parametrize(("name", "convolutions"), [("resnet20", 19), ("resnet32", 31), ("resnet56", 55)])
def test_a_cifar_resnet_has_the_layers_of_its_name(name: str, convolutions: int) -> None:
    network = build_network(nets.spec(name, classes="ab", width=8), device="meta")
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == convolutions
    assert network.fc.in_features == 32


def test_resnet20_has_the_published_number_of_parameters() -> None:
    network = build_network(nets.spec("resnet20", classes="0123456789"), device="meta")
    assert sum(p.numel() for p in network.parameters()) == 269_722


@pytest.mark.parametrize(
    "name",
    [
        "resnet18", "os.system", "torchvision.models.resnet18", "torchvision/nothing", "torchvision/", "", "CNN",
        "timm/", "timm/nothing", "timm/hf_hub:timm/resnet18.a1_in1k", "timm/hf-hub:timm/resnet18.a1_in1k",
        "timm/local-dir:/tmp/model", "timm/resnet18.a1_in1k", "hf_hub:timm/resnet18.a1_in1k", "TIMM/resnet18",
    ],
)  # fmt: skip
def test_an_unknown_name_or_dotted_path_is_refused(name: str) -> None:
    with pytest.raises(UnknownArchitecture, match=r"expected one of .*'cnn'.*got"):
        build_network(dataclasses.replace(CNN, architecture=name))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn", {"width": 0}),
        ("cnn", {"width": MAX_WIDTH + 1}),
        ("cnn", {"width": 4.0}),
        ("cnn", {"width": True}),
        ("cnn", {"width": "4"}),
        ("cnn", {"depth": 3}),
        ("cnn", {"spec": 3}),
        ("resnet20", {"blocks": 3}),
        ("torchvision/resnet18", {"weights": "DEFAULT"}),
        ("torchvision/resnet18", {"name": "resnet50"}),
    ],
)
def test_a_bad_option_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"options.*got"):
        build_network(
            nets.spec(name, **options) if "spec" not in options else dataclasses.replace(CNN, options=options)
        )


def test_a_torchvision_network_needs_three_channels() -> None:
    with pytest.raises(NetworkError, match="expected input_size with 3 channels, got 1"):
        build_network(nets.spec("torchvision/resnet18", 32, 1))


@pytest.mark.parametrize(("name", "size"), [("resnet10t", 40), ("vit_tiny_patch16_224", 48), ("mixer_s32_224", 64)])
def test_a_timm_network_is_built_for_the_spec_s_images(name: str, size: int) -> None:
    spec = nets.spec(f"timm/{name}", size, 1, "abcd")
    network = build_network(spec)
    with torch.no_grad():
        assert network(nets.pictures(2, spec)).shape == (2, 4)
    assert all(t.is_meta for t in build_network(spec, device="meta").state_dict().values())
    assert network.state_dict().keys() == build_network(spec, device="meta").state_dict().keys()


def test_a_timm_network_is_random_and_takes_no_options() -> None:
    torch.manual_seed(0)
    one, two = (build_network(nets.spec("timm/resnet10t", 32)) for _ in range(2))
    assert fingerprint(one) != fingerprint(two)
    with pytest.raises(ConfigError, match=r"options of timm/resnet10t: got {'pretrained': True}"):
        build_network(nets.spec("timm/resnet10t", 32, pretrained=True))


def test_masks_that_a_timm_network_may_take_are_no_inputs() -> None:
    spec = nets.spec("timm/vit_tiny_patch16_224", 48)
    network = build_network(spec, device="meta")
    assert "attn_mask" in inspect.signature(network.forward).parameters
    traced = trace(network, spec)
    assert [n.name for n in traced.graph_module.graph.nodes if n.op == "placeholder"] == ["x"]
    assert len(traced.positions) > 24


def test_timm_is_not_imported_for_other_networks() -> None:
    code = """
import sys
from pnc_core.graph.architectures import build_network
from tests.unit.pnc_core import nets
build_network(nets.spec("torchvision/squeezenet1_0"), device="meta")
print("timm" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    timm_architectures.cache_clear()
    try:
        with pytest.raises(UnknownArchitecture, match=r"expected timm.*got none; pip install 'pnc-zoo\[timm\]'"):
            build_network(nets.spec("timm/resnet10t"))
        build_network(CNN)
    finally:
        timm_architectures.cache_clear()


@pytest.mark.parametrize(("name", "size"), [("torchvision/vit_b_16", 33), ("torchvision/maxvit_t", 64)])
def test_an_input_size_that_the_architecture_cannot_take_is_a_network_error(name: str, size: int) -> None:
    with pytest.raises(NetworkError, match="input_size"):
        build_network(nets.spec(name, size), device="meta")


def test_a_network_that_needs_values_while_it_is_built_is_refused_on_the_meta_device() -> None:
    with pytest.raises(NetworkError, match=r"timm/vitamin_small_224: expected one that builds on 'meta'"):
        build_network(nets.spec("timm/vitamin_small_224", 224), device="meta")


def test_weights_are_copied_in_and_the_state_is_not_shared() -> None:
    one, two = build_network(CNN), build_network(CNN)
    assert load_weights(two, one.state_dict()) is two
    assert fingerprint(one) == fingerprint(two)
    two.fc.bias.data.add_(1)
    assert fingerprint(one) != fingerprint(two)


def _broken(what: str) -> dict[str, torch.Tensor]:
    state = nets.snapshot(build_network(CNN))
    if what == "missing":
        del state["fc.bias"]
    elif what == "extra":
        state["surprise"] = torch.ones(1)
    elif what == "shape":
        state["fc.bias"] = torch.ones(7)
    elif what == "dtype":
        state["fc.bias"] = state["fc.bias"].double()
    else:
        state["fc.bias"][0] = float(what)
    return state


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"expected the 26 tensors .*, got 25; missing \['fc.bias'\], unexpected none"),
        ("extra", r"missing none, unexpected \['surprise'\]"),
        ("shape", r"'fc.bias' expected torch.float32 \(3,\), got torch.float32 \(7,\)"),
        ("dtype", r"'fc.bias' expected torch.float32 \(3,\), got torch.float64 \(3,\)"),
        ("nan", "'fc.bias' expected finite numbers"),
        ("inf", "'fc.bias' expected finite numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(what: str, message: str) -> None:
    network = build_network(CNN)
    before = fingerprint(network)
    with pytest.raises(WeightsMismatch, match=message):
        load_weights(network, _broken(what))
    with pytest.raises(WeightsMismatch, match=message):
        check_weights(build_network(CNN, device="meta"), _broken(what))
    assert fingerprint(network) == before


def test_a_network_comes_back_from_its_file(tmp_path: Path) -> None:
    network, path = build_network(CNN), tmp_path / "weights.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    loaded = load_network(CNN, path)
    assert fingerprint(loaded) == fingerprint(network)
    assert not loaded.training


def test_a_file_of_another_width_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(build_network(CNN).state_dict(), path)
    with pytest.raises(WeightsMismatch, match="check architecture, options and classes"):
        load_network(dataclasses.replace(CNN, options={"width": 5}), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TensorFileError):
        load_network(CNN, path)
