"""Run `pnc` or Python with the settings that make_secrets.py has written; what is set already wins."""

import json
import os
import sys
from pathlib import Path

SETTINGS = Path("/run/secrets/pnc/settings.json")


def main(arguments: list[str]) -> None:
    """Take the place of this process."""
    for name, value in json.loads(SETTINGS.read_text()).items():
        os.environ.setdefault(name, value)
    program = arguments if arguments[:1] == ["python"] else ["pnc", *arguments]
    os.execvp(program[0], program)  # noqa: S606 - no shell


if __name__ == "__main__":
    main(sys.argv[1:])
