"""Forecast the accuracy and the time of a job: `python -m workers.advising`.

The API and the page run this module as a child process, because both networks run once over some images. Standard
input has a JSON list of jobs: the ids of both versions and of the dataset, and the parameters. Standard output has one
line of JSON for each job as soon as its forecast is made.
"""

import json
import sys
from dataclasses import asdict
from typing import Any

from app.datasets.tables import DatasetRow
from app.errors import ZooError
from app.models.tables import VersionRow
from app.process.lifeline import end_with_parent
from app.settings import Settings
from app.zoo import Zoo, open_zoo
from pnc_core.config import CloneConfig
from pnc_core.errors import PncError
from pnc_core.graph.positions import trace
from pnc_core.method.advice import advise
from pnc_core.method.job import prepare
from pnc_core.module.manifest import build
from workers.loading import load_inputs

MOST_IMAGES = 2000
"""Images that are read. The forecast itself uses fewer; the time is that of a job on all images."""


def advice(zoo: Zoo, asked: dict[str, Any]) -> dict[str, Any]:
    """The forecast for a job, as JSON has it.

    Args:
        zoo: The open zoo.
        asked: `target` and `source`, ids of versions; `dataset`, an id; `config`, the fields of a `CloneConfig`.

    Raises:
        PncError: nothing can be foretold without cloning.
        ZooError: an object is missing.
    """
    with zoo.database.read() as session:
        target, source = (session.get_one(VersionRow, asked[name]) for name in ("target", "source"))
        dataset = session.get_one(DatasetRow, asked["dataset"])
    config = build(CloneConfig, asked["config"], "config")
    one, other, images, config = load_inputs(zoo, target, source, dataset, config, max_images=MOST_IMAGES)
    job = prepare(trace(*one), trace(*other), images, config, lambda step: None, lambda: False)
    found = advise(job)
    relevant = sum(dataset.counts.get(name, 0) for name in images.classes)
    return {**asdict(found), "seconds": found.seconds * max(1.0, relevant / len(images))}


def main() -> None:
    """Entry of the child process."""
    end_with_parent()
    jobs = json.load(sys.stdin)
    zoo = open_zoo(Settings())
    try:
        for asked in jobs:
            try:
                told = advice(zoo, asked)
            except (PncError, ZooError) as error:
                told = {"error": {"code": error.code, "detail": str(error)}}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
    finally:
        zoo.close()


if __name__ == "__main__":
    main()
