"""Run `pnc` or Python with the settings from make_secrets.py; variables that are set already take precedence."""

import json
import os
import sys
from pathlib import Path

SETTINGS = Path("/run/secrets/pnc/settings.json")


def main(arguments: list[str]) -> None:
    """Replace this process by the program."""
    for name, value in json.loads(SETTINGS.read_text()).items():
        os.environ.setdefault(name, value)
    program = arguments if arguments[:1] == ["python"] else ["pnc", *arguments]
    os.execvp(program[0], program)  # noqa: S606 - no shell


if __name__ == "__main__":
    main(sys.argv[1:])
