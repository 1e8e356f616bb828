"""The checks, in order. Runs in the network of the sandbox; see `tests.compose.__main__`.

python -m tests.compose.checks WORK PID INDEX KEEP
"""

import sys
from pathlib import Path

from tests.compose import building, living, roles, with_s3
from tests.compose.report import Report
from tests.compose.sandbox import Sandbox
from tests.compose.stack import Stack

DEFAULT, S3, EMBEDDED = "docker-compose.yml", "docker/s3.yml", "docker/embedded.yml"


def main(box: Sandbox, *, keep: bool) -> int:
    """Run all checks; returns the exit status."""
    report = Report()
    stack = Stack(box, DEFAULT)
    with report.part("files"):
        building.check_files(report, box)
    with report.part("images"):
        building.build(report, stack)
    with report.part("first start"):
        living.start(report, stack)
    with report.part("roles"):
        roles.check(report, stack)
    with report.part("encoding of the database"):
        roles.check_encoding(report, stack)
    life = living.Life(report, stack)
    with report.part("a user's way"):
        life.clone()
    with report.part("faults"):
        life.faults()
    with report.part("down and up"):
        life.down_and_up()
    stack.compose("down", "--volumes", check=False)
    with report.part("objects on an S3 server"):
        with_s3.check(report, Stack(box, DEFAULT, S3))
    Stack(box, DEFAULT, S3).compose("down", "--volumes", check=False)
    with report.part("one container"):
        living.check_embedded(report, Stack(box, EMBEDDED), keep=keep)
    return report.end()


if __name__ == "__main__":
    work, pid, index, keeping = sys.argv[1:]
    sys.exit(main(Sandbox(Path(work), int(pid), index), keep=keeping == "keep"))
