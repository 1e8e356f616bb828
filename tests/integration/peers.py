"""Virtual environments for clients whose dependencies conflict with ours."""

import subprocess
import venv
from pathlib import Path

from platformdirs import user_cache_path

KSERVE = "kserve==0.21.0"


def environment(requirement: str) -> Path:
    """The Python of an environment with a package; the environment is made once, in the user's cache.

    Raises:
        AssertionError: the package cannot be installed.
    """
    folder = user_cache_path("pnc-zoo") / "environments" / requirement
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        installed = subprocess.run(
            [python, "-m", "pip", "install", "-q", requirement], capture_output=True, text=True, check=False
        )
        assert installed.returncode == 0, f"expected pip to install {requirement}, got: {installed.stderr[-2000:]}"
        (folder / "done").touch()
    return python
