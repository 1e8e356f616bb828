"""`python -m tests.services up|down|status [--dir D] [redis postgres s3]`."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.services import S3, Postgres, Redis, Service, Unavailable

KINDS: dict[str, type[Service]] = {kind.name: kind for kind in (Redis, Postgres, S3)}
DEFAULT = Path(tempfile.gettempdir()) / "pnc-services"


def main() -> int:
    """Start services that are not running, show their status, or stop them and delete their files."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "status"])
    parser.add_argument("names", nargs="*", metavar="service", help=f"one or more of {', '.join(KINDS)}; default: all")
    parser.add_argument("--dir", type=Path, default=DEFAULT, help=f"folder of their files; default: {DEFAULT}")
    given = parser.parse_args()
    unknown = set(given.names) - set(KINDS)
    if unknown:
        parser.error(f"expected services of {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    names = given.names or list(KINDS)
    try:
        return {"up": _up, "down": _down, "status": _status}[given.action](given.dir, names)
    except Unavailable as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _up(directory: Path, names: list[str]) -> int:
    """Start services and print their variables, for use as in `env $(python -m tests.services up) pnc up`."""
    for name in names:
        service = KINDS[name](directory, lasting=True).start()
        for variable, value in service.environment().items():
            sys.stdout.write(f"{variable}={value}\n")
    return 0


def _down(directory: Path, names: list[str]) -> int:
    for name in names:
        if (directory / name).exists():
            KINDS[name](directory, lasting=True).stop()
            shutil.rmtree(directory / name)
    return 0


def _status(directory: Path, names: list[str]) -> int:
    """Print the status of services; the exit code is 1 if one of them is down."""
    up = {name: (directory / name).exists() and KINDS[name](directory, lasting=True).answers() for name in names}
    for name, answers in up.items():
        sys.stdout.write(f"{name}: {'up' if answers else 'down'}\n")
    return 0 if all(up.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
