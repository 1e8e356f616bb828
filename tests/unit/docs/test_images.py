"""The programs that make images: the wrong build of torch is refused, and only unused files go."""

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
NEVER = "nvidia-cublas==13; platform_machine == 'abacus'"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docker/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pretend(monkeypatch: pytest.MonkeyPatch, *needs: str) -> ModuleType:
    """choose_torch.py with a pip that would install a torch with these requirements."""
    report = {"install": [{"metadata": {"version": "2.13.0", "requires_dist": list(needs)}}]}

    def run(*_: Any, **__: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess([], 0, json.dumps(report), "")

    module = _load("choose_torch")
    monkeypatch.setattr(module.subprocess, "run", run)
    return module


def test_the_wanted_build_of_torch_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, "sympy", NEVER).main("cpu", "none")
    _pretend(monkeypatch, "sympy", "triton==3").main("cuda", "none")
    _pretend(monkeypatch, "triton==3").main("none", "none")


@pytest.mark.parametrize(
    ("wanted", "needs", "told"),
    [
        ("cpu", ["nvidia-cublas==13"], "got torch 2.13.0 .cuda.; give --build-arg PIP_EXTRA_INDEX_URL"),
        ("cuda", ["sympy"], "got torch 2.13.0 .cpu.; leave PIP_EXTRA_INDEX_URL empty"),
        ("tpu", [], "TORCH: expected cpu, cuda or none, got 'tpu'"),
    ],
)
def test_another_build_of_torch_is_refused(
    monkeypatch: pytest.MonkeyPatch, wanted: str, needs: list[str], told: str
) -> None:
    with pytest.raises(SystemExit, match=told):
        _pretend(monkeypatch, *needs).main(wanted, "none")


def test_only_unused_files_are_removed(tmp_path: Path) -> None:
    site = tmp_path / "lib/python3.11/site-packages"
    kept = ["torch/lib/libtorch.so", "torch/bin/torch_shm_manager", "torch/testing/__init__.py", "pkg/a/b/include/x.py"]
    kept += ["botocore/data/s3/service.json", "botocore/data/endpoints.json", "pyarrow/libarrow_substrait.so.1"]
    gone = ["torch/bin/protoc", "torch/include/a.h", "torch/test/x", "numpy/_core/include/n.h", "numpy/tests/test_a.py"]
    gone += ["botocore/data/ec2/service.json", "pyarrow/libarrow_flight.so.1", "pkg/stub.pyi", "pkg/deep/tests/x.py"]
    for number, name in enumerate([*kept, *gone]):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    for twin in ("libp.so", "libp.so.1"):
        (site / "pyarrow" / twin).write_text("same bytes")
    _load("slim").main("packages", tmp_path)
    assert [name for name in kept if not (site / name).is_file()] == []
    assert [name for name in gone if (site / name).exists()] == []
    assert (site / "pyarrow/libp.so.1").is_symlink()
    assert (site / "pyarrow/libp.so.1").read_text() == "same bytes"
