"""The command of the container test; see the package."""

import argparse
import os
import sys
from pathlib import Path

from tests.compose import bases
from tests.compose.machine import CannotRun
from tests.compose.sandbox import enter_network, sandbox


def main() -> None:
    """Start the sandbox, make the base images, and run the checks in the sandbox's network."""
    parser = argparse.ArgumentParser(prog="python -m tests.compose", description=__doc__)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument(
        "--work", type=Path, default=cache / "pnc-compose", help="folder of images and logs, used again by the next run"
    )
    parser.add_argument("--keep", action="store_true", help="leave the sandbox and the last stack running")
    given = parser.parse_args()
    work: Path = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        with sandbox(work, keep=given.keep) as box:
            bases.make(box)
            words = [str(box.work), str(box.pid), box.index, "keep" if given.keep else "end"]
            status = enter_network(box, [sys.executable, "-m", "tests.compose.checks", *words])
    except CannotRun as error:
        sys.exit(f"make compose: this machine cannot run it: {error}")
    sys.exit(status)


if __name__ == "__main__":
    main()
