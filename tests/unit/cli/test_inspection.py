import json
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app


def _seen(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["inspect", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_an_own_architecture_with_its_positions_and_groups() -> None:
    seen = _seen("cnn", "--size", "16", "--classes", "3")
    assert [(p["name"], p["shape"]) for p in seen["positions"]] == [
        ("input", [3, 16, 16]),
        ("blocks.0", [32, 16, 16]),
        ("blocks.1", [32, 8, 8]),
        ("blocks.2", [64, 4, 4]),
        ("blocks.3", [128, 4, 4]),
    ]
    assert [(g["made_by"], g["channels"], g["read_by"]) for g in seen["groups"]] == [
        (["blocks.0.0"], 32, ["blocks.1.0"]),
        (["blocks.1.0"], 32, ["blocks.2.0"]),
        (["blocks.2.0"], 64, ["blocks.3.0"]),
        (["blocks.3.0"], 128, ["fc"]),
    ]


def test_an_architecture_of_torchvision_leaves_its_streams_whole() -> None:
    seen = _seen("torchvision/resnet18", "--size", "64")
    assert seen["numbers"] > 11_000_000
    assert [p["name"] for p in seen["positions"]][-2:] == ["layer4.0", "layer4.1"]
    assert [g["made_by"] for g in seen["groups"]] == [[f"layer{i}.{j}.conv1"] for i in range(1, 5) for j in range(2)]


def test_people_get_tables() -> None:
    done = CliRunner().invoke(app, ["inspect", "cnn"])
    assert "Positions of cnn" in done.stdout
    assert "128 x 128" not in done.stdout
    assert "32 x 32" in done.stdout
    assert "Channel groups that can be pruned" in done.stdout


@pytest.mark.parametrize("name", ["nothing", "torchvision/nothing", "../cnn"])
def test_an_unknown_name_is_refused_with_those_that_are_known(name: str) -> None:
    done = CliRunner().invoke(app, ["inspect", name, "--json"])
    error = json.loads(done.stdout)["error"]
    assert done.exit_code == error["exit"] == 1
    assert error["detail"].startswith("architecture: expected one of ['cnn', ")
    assert f"got {name!r}" in error["detail"]
    assert error["detail"].endswith("; did you mean 'cnn'?") == (name == "../cnn")
