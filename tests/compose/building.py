"""The files are valid, and the images are as small as they should be."""

from tests.compose.report import Report
from tests.compose.sandbox import Sandbox
from tests.compose.stack import Stack

MOST_MEGABYTES = {"pnc-zoo": 1200, "pnc-zoo-api": 560}
"""Largest size of each image with its base, which is 45 MB larger here than the official one. torch's library alone has
434 MB; in the API's image pyarrow has 98 MB, numpy 56 MB, and SQLAlchemy and NiceGUI 29 MB each."""


def check_files(report: Report, box: Sandbox) -> None:
    """Check the compose files, alone and together."""
    for words in (
        (),
        ("--profile", "gpu"),
        ("-f", "docker-compose.yml", "-f", "docker/s3.yml"),
        ("-f", "docker/embedded.yml"),
    ):
        done = box.run("docker", "compose", *words, "config", "--quiet", check=False)
        report.check(f"config {' '.join(words)}".strip(), done.returncode == 0, done.stdout)


def build(report: Report, stack: Stack) -> None:
    """Build both images, and check that a wrong build of torch is refused early."""
    stack.compose("build", "api", "worker")
    for name, most in MOST_MEGABYTES.items():
        size = int(stack.box.docker("image", "inspect", "--format", "{{.Size}}", name)) / 1e6
        report.note(f"megabytes of {name}", round(size))
        report.check(f"{name} has at most {most} MB", size <= most, f"{size:.0f} MB")
    wrong = stack.box.run(
        *("docker", "build", "--progress", "plain", "-f", "docker/Dockerfile"),
        *("--build-arg", "TORCH=cuda", "--build-arg"),
        *(f"PIP_EXTRA_INDEX_URL={stack.box.index}", "."),
        check=False,
    )
    report.check(
        "a build of torch that was not asked for is refused",
        wrong.returncode != 0 and "TORCH: expected a cuda build" in wrong.stdout,
        wrong.stdout,
    )
