"""The result of a check in words and as JSON, for the row, the command line and the page."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pnc_core.analysis.check import Cause, Check

MOST_CLASSES = 20
"""More class names are not written out as an option."""


def result_of(check: "Check") -> dict[str, Any]:
    """The fields of a `pnc_client.schemas.checks.VersionCheck`, apart from dataset and time."""
    low, high = check.score.interval
    cause = None if check.cause is None else _cause(check.cause)
    return {
        "outcome": "suspect" if cause else "near_chance" if check.near_chance else "fine",
        "detail": _detail(check),
        "accuracy": check.score.share,
        "low": low,
        "high": high,
        "images": check.score.images,
        "chance": check.chance,
        "cause": cause,
    }


def options(changes: Mapping[str, Any]) -> str:
    """Changed fields of a spec as options of `pnc models push`."""
    return " ".join(text for name, value in changes.items() for text in _option(name, value))


def _cause(cause: "Cause") -> dict[str, Any]:
    low, high = cause.after.interval
    return {
        "title": cause.title,
        "changes": cause.changes,
        "options": options(cause.changes),
        "before": cause.before.share,
        "after": cause.after.share,
        "low": low,
        "high": high,
        "images": cause.after.images,
    }


def _detail(check: "Check") -> str:
    measured = f"accuracy {check.score}, chance {100 * check.chance:.3g} %"
    if check.cause is not None:
        cause = check.cause
        return (
            f"{measured}; with {cause.title} {cause.after} instead of {100 * cause.before.share:.1f} %: "
            f"push again with {options(cause.changes)}"
        )
    if check.near_chance:
        tried = f"{check.tried} other descriptions" if check.tried else "nothing else"
        return (
            f"{measured}: the network guesses; tried {tried} without success; compare architecture options, "
            "preprocessing and class order with the training script"
        )
    return measured


def _option(name: str, value: Any) -> list[str]:
    if name == "options":
        return [f"--set {key}={item if isinstance(item, str) else json.dumps(item)}" for key, item in value.items()]
    if name == "preprocessing":
        return [f"--{key.replace('_', '-')} {item}" for key, item in value.items() if item is not None]
    if name == "input_size":
        return [f"--input-size {'x'.join(map(str, value))}"]
    if name == "classes" and (len(value) > MOST_CLASSES or any(set(", '\"") & set(item) for item in value)):
        return ["--classes FILE with the names in the proposed order"]
    items = (item if isinstance(item, str) else f"{item:g}" for item in value)
    return [f"--{name} {','.join(items)}"]
