"""Programs of the operating system: found, or installed with apt, or one clear error."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

POSTGRES = Path("/usr/lib/postgresql")
"""Where Debian keeps programs of PostgreSQL, a directory a version."""


class Unavailable(Exception):
    """A service can be neither found nor installed here; the message says what to do."""


def find(program: str, packages: Sequence[str]) -> str:
    """The path of a program, installed now if it is missing and may be.

    Args:
        program: Its name.
        packages: Debian packages that bring it.

    Raises:
        Unavailable: it is missing, and cannot be installed.
    """
    path = _look(program)
    if path is None:
        _install(program, packages)
        path = _look(program)
    if path is None:
        raise Unavailable(f"expected {' '.join(packages)} to bring the program {program}, got none; install it by hand")
    return path


def _look(program: str) -> str | None:
    found = shutil.which(program)
    if found is not None:
        return found
    versions = sorted(POSTGRES.glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((str(path / program) for path in versions if (path / program).exists()), None)


def _install(program: str, packages: Sequence[str]) -> None:
    advice = f"install it: apt-get install --no-install-recommends {' '.join(packages)}"
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Unavailable(f"expected the program {program}, got none, and only root can install it with apt; {advice}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    for command in ([*apt, "update"], [*apt, "install", "--no-install-recommends", *packages]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(
                f"expected the program {program}, got none, and apt fails: {done.stderr[-400:]}; {advice}"
            )
