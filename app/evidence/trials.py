"""What a job's position search tried, from a file."""

import json
from dataclasses import fields
from pathlib import Path

from pnc_core.search import Trial


def read_trials(path: Path) -> list[Trial]:
    """The trials of a job's last attempt.

    Args:
        path: JSON: a list of trials, or the answer of GET /v1/cloning-jobs/{job}/trials.

    Raises:
        ValueError: not such a file.
        OSError: it cannot be read.
    """
    try:
        value = json.loads(path.read_bytes())
        rows = value["data"] if isinstance(value, dict) else value
        last = max((row.get("attempt", 1) for row in rows), default=1)
        names = [field.name for field in fields(Trial)]
        trials = [Trial(**{n: row[n] for n in names}) for row in rows if row.get("attempt", 1) == last]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise ValueError(f"{path}: expected a JSON list of trials, got something else ({kind}: {error})") from None
    if isinstance(value, dict) and value.get("has_more"):
        raise ValueError(f"{path}: expected all trials of the job, got one page of several; ask for more with ?limit=")
    return trials
