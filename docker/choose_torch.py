"""End the build of an image within seconds if pip would install another build of torch than the wanted one.

choose_torch.py cpu|cuda|none CONSTRAINTS
"""

import json
import subprocess
import sys
from typing import Any

from pip._vendor.packaging.requirements import Requirement  # the environment has only pip yet

CUDA = ("cuda", "nvidia", "triton")
"""Beginnings of the names of packages that a CUDA build of torch needs."""
ADVICE = {
    "cpu": "give --build-arg PIP_EXTRA_INDEX_URL with the address of PyTorch's index of CPU wheels (in Compose the "
    "variable of the same name), or choose CUDA with --build-arg TORCH=cuda",
    "cuda": "leave PIP_EXTRA_INDEX_URL empty and give --build-arg CONSTRAINTS=/dev/null",
}


def main(wanted: str, constraints: str) -> None:
    """Compare the build that pip would choose with the wanted one.

    Args:
        wanted: `cpu`, `cuda` or `none`.
        constraints: A file of constraints for pip.
    """
    if wanted not in (*ADVICE, "none"):
        sys.exit(f"TORCH: expected cpu, cuda or none, got {wanted!r}")
    if wanted == "none":
        return
    metadata = chosen(constraints)
    got = "cuda" if any(needed(text) for text in metadata.get("requires_dist", ())) else "cpu"
    if got != wanted:
        sys.exit(f"TORCH: expected a {wanted} build, got torch {metadata['version']} ({got}); {ADVICE[wanted]}")


def needed(text: str) -> bool:
    """Whether a requirement is one of CUDA and holds on this machine."""
    requirement = Requirement(text)
    holds = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    return holds and requirement.name.lower().startswith(CUDA)


def chosen(constraints: str) -> dict[str, Any]:
    """Metadata of the torch that pip would install. Only the metadata is downloaded where the index has it apart."""
    options = ["--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", "-c", constraints]
    command = [sys.executable, "-m", "pip", "install", *options, "torch"]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - no shell
    report = json.loads(told.stdout)
    found: dict[str, Any] = report["install"][0]["metadata"]
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
