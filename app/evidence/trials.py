"""What a job's position search tried, from a file."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from pnc_client.schemas.jobs import newest_trials
from pnc_core.method.search import Trial

_NEEDED = {"target_position", "source_position", "round", "score", "parameters", "seconds"}


def read_trials(path: Path) -> list[Trial]:
    """The trials of all of a job's attempts, the newest of each pair of positions in each round.

    Args:
        path: JSON: a list of trials, or the answer of GET /v1/cloning-jobs/{job}/trials.

    Raises:
        ValueError: not such a file.
        OSError: it cannot be read.
    """
    try:
        value = json.loads(path.read_bytes())
        rows = value["data"] if isinstance(value, dict) else value
        trials = [_trial(row) for row in newest_trials(rows, dict.get)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise ValueError(f"{path}: expected a JSON list of trials, got something else ({kind}: {error})") from None
    if isinstance(value, dict) and value.get("has_more"):
        raise ValueError(f"{path}: expected all trials of the job, got one page of several; ask for more with ?limit=")
    return trials


def _trial(row: dict[str, Any]) -> Trial:
    """What the curve does not need may be missing."""
    values: dict[str, Any] = {f.name: row[f.name] if f.name in _NEEDED else row.get(f.name) for f in fields(Trial)}
    return Trial(**values)
