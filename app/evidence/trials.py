"""Read a job's trials from a file."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from pnc_client.schemas.jobs import newest_trials
from pnc_core.method.search import Trial

_NEEDED = {"target_position", "source_position", "round", "score", "parameters", "seconds"}


def read_trials(path: Path) -> list[Trial]:
    """The newest trial of each pair of positions in each round, over all attempts of a job.

    Args:
        path: JSON: a list of trials, or the response of GET /v1/cloning-jobs/{job}/trials.

    Raises:
        ValueError: the file is not such JSON, or holds only one of several pages.
        OSError: the file cannot be read.
    """
    try:
        value = json.loads(path.read_bytes())
        rows = value["data"] if isinstance(value, dict) else value
        trials = [_trial(row) for row in newest_trials(rows, dict.get)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise ValueError(f"{path}: expected a JSON list of trials, got other content ({kind}: {error})") from None
    if isinstance(value, dict) and value.get("has_more"):
        raise ValueError(f"{path}: expected all trials of the job, got one page of several; request more with ?limit=")
    return trials


def _trial(row: dict[str, Any]) -> Trial:
    """A `Trial` of a JSON row; fields that the position curve does not need may be missing."""
    values: dict[str, Any] = {f.name: row[f.name] if f.name in _NEEDED else row.get(f.name) for f in fields(Trial)}
    return Trial(**values)
