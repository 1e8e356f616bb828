"""The forecast of a job's accuracy and time, made by a child process because it runs both networks."""

import json
import subprocess
from dataclasses import asdict
from typing import Any

from app.errors import Invalid
from app.jobs import service as jobs
from app.jobs.service import JobRequest
from app.process.children import python
from app.process.lifeline import child_environment
from app.zoo import Zoo

SECONDS = 60
"""Time limit. A forecast for small networks takes about ten seconds, half of them to start."""


def advised(zoo: Zoo, request: JobRequest) -> dict[str, Any]:
    """The fields of a `pnc_client.schemas.jobs.Advice`.

    Args:
        zoo: The zoo, restricted to the caller's workspace.
        request: A job that `jobs.validate` finds no problem in.

    Raises:
        Invalid: the job has problems, or nothing can be foretold without cloning.
    """
    with zoo.database.read() as session:
        asked = jobs.resolved(session, request)
    try:
        done = subprocess.run(  # noqa: S603 - our own module, no shell
            python("workers.advising"),
            input=json.dumps(asdict(asked)).encode(),
            capture_output=True,
            timeout=SECONDS,
            env=child_environment({**zoo.settings.environment(), "OMP_NUM_THREADS": "1"}),
            check=True,
            start_new_session=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        got = f"none after {SECONDS} s" if isinstance(error, subprocess.TimeoutExpired) else type(error).__name__
        raise Invalid.at(
            "", "no_advice", f"expected a forecast, got {got}; start the job, its verdict says more"
        ) from None
    told: dict[str, Any] = json.loads(done.stdout)
    if "error" in told:
        raise Invalid.at("", told["error"]["code"], told["error"]["detail"])
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
