"""The child process that finds an architecture answers with a plan for every tensor."""

import json
from typing import Any

import pytest

from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.networks.classes import CIFAR10
from workers.networks.identification import answer


def outline(depth: int) -> dict[str, Any]:
    scale: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    spec = NetworkSpec(architecture=f"cifar/resnet{depth}", classes=CIFAR10, input_size=(3, 32, 32), **scale)
    state = build_network(spec, device="meta").state_dict()
    pairs = [
        [f"module.{name}", {"tensor": [place, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]}]
        for place, (name, tensor) in enumerate(state.items())
    ]
    return {"name": "net.th", "kind": "legacy", "saved": {"map": [["state_dict", {"map": pairs}]]}}


@pytest.fixture(scope="module")
def twenty() -> dict[str, Any]:
    return outline(20)


def test_a_published_network_is_chosen_with_its_classes_and_scaling(twenty: dict[str, Any]) -> None:
    told = answer(twenty, None)
    fit = told["fits"][told["chosen"]]
    assert (fit["architecture"], fit["published"]) == ("cifar/resnet20", "akamaster/pytorch_resnet_cifar10")
    assert fit["known"]["classes"] == list(CIFAR10)
    assert fit["known"]["mean"] == [0.485, 0.456, 0.406]
    assert sorted(place for place, _ in fit["plan"]) == list(range(told["tensors"]))
    assert "shortcut=pad-end" in fit["fits_as_well"]


def test_the_wanted_architecture_is_compared_alone(twenty: dict[str, Any]) -> None:
    told = answer(twenty, {"architecture": "cifar/resnet56", "options": {}})
    assert (told["chosen"], told["fits"]) == (None, [])
    (near,) = told["nearest"]
    assert near["architecture"] == "cifar/resnet56"
    assert near["missing_count"] > len(near["missing"]) == 3
    fits = answer(twenty, {"architecture": "cifar/resnet20", "options": {"shortcut": "pool"}})["fits"]
    assert [fit["options"] for fit in fits] == [{"shortcut": "pool"}]


def test_torchvisions_own_preprocessing_is_the_usual_one() -> None:
    spec = NetworkSpec(
        architecture="torchvision/resnet18", classes=("a", "b"), input_size=(3, 224, 224), mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )  # fmt: skip
    state = build_network(spec, device="meta").state_dict()
    pairs = [[name, {"tensor": [n, "float32", list(t.shape)]}] for n, (name, t) in enumerate(state.items())]
    told = json.loads(json.dumps(answer({"name": "n.pth", "kind": "zip", "saved": {"map": pairs}}, None)))
    fit = told["fits"][told["chosen"]]
    assert fit["architecture"] == "torchvision/resnet18"
    assert fit["usual"]["input_size"] == [3, 224, 224]
    assert fit["usual"]["preprocessing"]["resize"] == "shorter-side"
    assert "classes" not in fit["usual"]
