"""Finds programs of the operating system, and installs missing ones with apt."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

POSTGRES = Path("/usr/lib/postgresql")
"""Debian's folder of PostgreSQL programs, with one subfolder per version."""


class Unavailable(Exception):
    """A service can be neither found nor installed; the message says what to do."""


def find(program: str, packages: Sequence[str]) -> str:
    """Find a program, and install it if it is missing.

    Args:
        program: Name of the program.
        packages: Debian packages that contain it.

    Returns:
        The program's path.

    Raises:
        Unavailable: it is missing and cannot be installed.
    """
    path = _look(program)
    if path is None:
        # Parallel test processes may miss the same program, and apt runs only once at a time.
        with FileLock(Path(tempfile.gettempdir(), f"pnc-apt-{os.geteuid()}.lock")):
            if _look(program) is None:
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
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    for command in ([*apt, "update"], [*apt, "install", "--no-install-recommends", *packages]):
        done = _apt(command)
        if done.returncode:
            raise Unavailable(
                f"expected the program {program}, got none, and apt fails: {done.stderr[-400:]}; {advice}"
            )


def _locked_out(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode != 0 and "Could not get lock" in done.stderr


# Another apt may be running. `DPkg::Lock::Timeout` waits only for dpkg's lock, not for those of lists and archives.
@retry(
    retry=retry_if_result(_locked_out),
    wait=wait_fixed(2),
    stop=stop_after_delay(300),
    retry_error_callback=lambda state: state.outcome and state.outcome.result(),
)
def _apt(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
