"""Reads and writes the measured records of a benchmark as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from pnc_core.files import written_whole


def read_rows_to_resume(file: Path, resume: bool) -> list[dict[str, Any]]:
    """The rows of an earlier run if it is resumed, else none.

    Raises:
        typer.BadParameter: the file exists and `resume` is false, so that its rows would be lost.
    """
    if file.is_file() and not resume:
        raise typer.BadParameter(f"--out: expected a folder without {file.name}, got {file}; add --resume or move it")
    return read_rows(file) if resume else []


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows in a file; none if there is no file."""
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    return rows


def write_rows(file: Path, rows: Sequence[Any]) -> None:
    """Write all rows as one whole file or not at all, so that an interrupted run leaves a valid file."""
    with written_whole(file) as half:
        half.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
