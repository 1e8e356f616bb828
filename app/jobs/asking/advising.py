"""Forecasts of jobs: accuracy and time, made by a child process because it runs both networks."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from app.errors import Invalid
from app.jobs import service as jobs
from app.jobs.service import JobRequest
from app.process.children import python
from app.process.lifeline import child_environment
from app.zoo import Zoo


def advised(zoo: Zoo, request: JobRequest) -> dict[str, Any]:
    """The fields of a `pnc_client.schemas.jobs.Advice`.

    Args:
        zoo: The zoo, restricted to the caller's workspace.
        request: A job that `jobs.validate` finds no problem in.

    Raises:
        Invalid: the job has problems, or nothing can be foretold without cloning.
    """
    (told,) = told_of(zoo, [request])
    if "error" in told:
        raise Invalid.at("", told["error"]["code"], told["error"]["detail"])
    return fields_of(told)


def told_of(zoo: Zoo, requests: Sequence[JobRequest]) -> list[dict[str, Any]]:
    """The forecast of each job as `workers.advising` tells it; or `error` with code and detail.

    Args:
        zoo: The zoo, restricted to the caller's workspace.
        requests: Jobs that `jobs.validate` finds no problem in.

    Raises:
        Invalid: a job has problems.
    """
    with zoo.database.read() as session:
        asked = [asdict(jobs.resolved(session, request)) for request in requests]
    lines, reason = _lines(zoo, asked)
    detail = f"expected a forecast, got {reason}; start the job, its verdict says more"
    late = {"error": {"code": "no_advice", "detail": detail}}
    found = [json.loads(line) for line in lines]
    return [*found, *[late] * (len(requests) - len(found))]


def _lines(zoo: Zoo, asked: Sequence[dict[str, Any]]) -> tuple[list[bytes], str]:
    """The whole lines that the child has written in time, and the reason for which more are missing."""
    try:
        done = subprocess.run(  # noqa: S603 - our own module, no shell
            python("workers.advising"),
            input=json.dumps(asked).encode(),
            capture_output=True,
            timeout=zoo.settings.advice_seconds,
            env=child_environment({**zoo.settings.environment(), "OMP_NUM_THREADS": "1"}),
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        written, reason = error.stdout or b"", f"none after {zoo.settings.advice_seconds:g} s (PNC_ADVICE_SECONDS)"
    except OSError as error:
        written, reason = b"", type(error).__name__
    else:
        written, reason = done.stdout, f"a process that ended with {done.returncode}"
    return written[: written.rfind(b"\n") + 1].splitlines(), reason


def fields_of(told: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `pnc_client.schemas.jobs.Advice` from a forecast without error."""
    verdict, figure = told["verdict"], told["verdict"]["figures"]["module"]
    return {
        **{name: figure[name] for name in ("low", "high", "old", "new")},
        "accuracy": figure["average"],
        "numbers": figure["numbers"],
        "images": verdict["images"],
        "text": verdict["text"],
        "more_per_class": told["more"][0],
        "more_accuracy": told["more"][1],
        "seconds": told["seconds"],
    }
