"""The directory of temporary files."""

import os
from pathlib import Path

from app.errors import Misconfigured

VARIABLE = "TMPDIR"


def make_scratch() -> None:
    """Create the directory that TMPDIR names. A volume that is mounted over its parent hides the one of an image.

    Raises:
        Misconfigured: it cannot be created.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return
    try:
        Path(named).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(
            f"{VARIABLE}: expected a directory, or a place for one, got {named}: {error.strerror}; choose another"
        ) from None
