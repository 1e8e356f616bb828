"""Class names from files in which they are published, for `--classes FILE`."""

from pathlib import Path
from typing import Any

from app.models.class_lists import FORMS, read_class_list
from pnc_core.errors import ConfigError


def read_class_file(path: Path) -> dict[str, Any]:
    """The fields `classes` and `class_aliases` of a spec, from a file in one of the forms of `read_class_list`.

    Args:
        path: The file.

    Raises:
        ConfigError: the file has another form.
        OSError: the file cannot be read.
    """
    try:
        return read_class_list(path.read_text(encoding="utf-8"))
    except (ConfigError, ValueError):
        raise ConfigError(f"--classes: expected a file of class names ({FORMS}), got {path}") from None
