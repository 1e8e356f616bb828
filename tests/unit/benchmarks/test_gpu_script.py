"""`deploy/gpu_check.sh` names in one line what a host lacks, and runs the check where nothing is missing."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "deploy" / "gpu_check.sh"
TORCH = 'case "$*" in *is_available*) exit {};; *__version__*) echo "2.9.0 for CUDA 12.8";; *) echo "ran: $*";; esac'


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a host that has only the programs in `folder/bin` and the environment in `folder/venv`."""
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("dirname", "touch"):
        (folder / "bin" / name).symlink_to(f"/usr/bin/{name}")
    variables = {"PATH": str(folder / "bin"), "VENV": str(folder / "venv"), "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), *arguments], env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (None, "gpu_check: expected NVIDIA's driver, got no nvidia-smi; run this on a host with an NVIDIA GPU"),
        (
            "echo NVIDIA-SMI has failed; echo more; exit 9",
            "gpu_check: expected a GPU that the driver can use, got NVIDIA-SMI has failed; load the driver again",
        ),
        ("exit 0", "gpu_check: expected a GPU, got a driver without one; check that the GPU is visible"),
        ("echo 'H200, 580.1'", "gpu_check: expected Python 3.11 or later, got no python3; set PYTHON"),
    ],
)
def test_a_host_without_a_part_is_told_in_one_line(driver: str | None, said: str, tmp_path: Path) -> None:
    if driver is not None:
        program(tmp_path / "bin" / "nvidia-smi", driver)
    done = run(tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def host(folder: Path, *, unusable: int) -> None:
    program(folder / "bin" / "nvidia-smi", "echo 'H200, 580.1'")
    program(folder / "venv" / "bin" / "python", TORCH.format(unusable))
    (folder / "venv" / ".installed").write_text("")
    newer = (SCRIPT.parents[1] / "pyproject.toml").stat().st_mtime + 10
    os.utime(folder / "venv" / ".installed", (newer, newer))


def test_a_torch_that_cannot_use_the_gpu_is_named(tmp_path: Path) -> None:
    host(tmp_path, unusable=1)
    done = run(tmp_path)
    assert done.returncode == 2
    assert "expected a torch that can use H200, 580.1, got torch 2.9.0 for CUDA 12.8; unset" in done.stderr
    assert done.stderr.count("\n") == 1


def test_with_all_parts_the_check_runs_with_the_given_options(tmp_path: Path) -> None:
    host(tmp_path, unusable=0)
    done = run(tmp_path, "--out", "results/gpu")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ran: -W ignore -m benchmarks.gpu_check --out results/gpu\n"
