"""An architecture's name is checked before weights are sent."""

import subprocess

import pytest

from app.models import architectures
from pnc_core.config import NetworkSpec
from pnc_core.spelling import did_you_mean
from tests.unit import seeds

NAMES = ["resnet20", "cnn", "torchvision/resnet18", "torchvision/resnet34", "timm/resnet18", "timm/convnext_tiny"]


def _spec(architecture: str) -> NetworkSpec:
    return NetworkSpec(
        architecture=architecture, classes=seeds.LOW, input_size=(3, 8, 8), mean=(0.5,) * 3, std=(1,) * 3
    )


@pytest.mark.parametrize(
    ("typo", "advice"),
    [
        ("torchvision/resnet81", "; did you mean 'torchvision/resnet18', 'torchvision/resnet34' or 'timm/resnet18'?"),
        ("torchvison/resnet18", "; did you mean 'torchvision/resnet18' or 'timm/resnet18'?"),
        ("resnet18", "; did you mean 'torchvision/resnet18' or 'timm/resnet18'?"),
        ("ResNet-20", "; did you mean 'resnet20'?"),
        ("transformer", ""),
    ],
)
def test_a_typo_is_answered_with_similar_names(typo: str, advice: str) -> None:
    assert did_you_mean(typo, NAMES) == advice


def test_a_child_process_lists_what_this_installation_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "_names", [])
    assert architectures.problems(_spec("torchvision/resnet18")) == []
    (problem,) = architectures.problems(_spec("torchvision/resnet118"))
    assert (problem.pointer, problem.code) == ("/spec/architecture", "unknown_architecture")
    assert "'torchvision/resnet18'" in problem.detail
    assert len(problem.detail) < 200


def test_without_a_list_no_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", architectures.SECONDS)

    monkeypatch.setattr(architectures, "_names", [])
    monkeypatch.setattr(subprocess, "run", gone)
    assert architectures.problems(_spec("torchvision/resnet118")) == []


def test_without_torch_no_child_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "_names", [])
    monkeypatch.setattr(architectures, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a child process was started"))
    assert architectures.problems(_spec("torchvision/resnet118")) == []
