"""The command of the chaos test; see the package."""

import argparse
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app import demo
from app.db.leases import Lease
from app.jobs.tables import JobRow
from app.settings import MAX_ATTEMPTS, Settings
from app.zoo import Zoo, open_zoo
from pnc_client import Client, ClientError, Dataset
from pnc_core.config import CloneConfig, Position
from tests.chaos.faults import Faults
from tests.chaos.link import Link
from tests.chaos.verdict import Verdict, judge, losses
from tests.services import S3, Postgres, Redis
from tests.services.service import Service
from tests.stack import Stack, running

BASE = CloneConfig(classes=("7", "8", "9"), epochs=8, batch_size=64, shortlist=3, views=1, screen_images=200)
CONFIGS = (BASE, replace(BASE, classes=("5", "7"), seed=1), replace(BASE, classes=("6",), preset="fast"))
SHORT = {"preset": "fast", "position": Position(target="blocks.1", source="blocks.1")}
"""Parameters of short jobs, without search and with little training, so that the test loads mainly the queue."""
PATIENCE_SECONDS = 900
IN_FLIGHT = 2
Result = TypeVar("Result")


class Chaos:
    """A stack with open jobs, their expected results, and the leases seen so far.

    Args:
        stack: The running stack.
        zoo: Access to the stack's rows and objects.
        dataset: The dataset of digits.
        console: Shows the progress.
    """

    def __init__(self, stack: Stack, zoo: Zoo, dataset: Dataset, console: Console) -> None:
        self.stack, self.zoo, self.dataset, self.console = stack, zoo, dataset, console
        self.configs: Sequence[CloneConfig] = CONFIGS
        self.wanted: dict[str, set[str]] = {}
        self.leases: dict[tuple[str, int], Lease] = {}
        self._reference: list[set[str]] = []

    def learn(self) -> None:
        """Run jobs without faults and remember the digests of their bundles."""
        with Client(self.stack.url) as client:
            posted = [
                client.jobs.create("digits-low", "digits-high", self.dataset.id, config) for config in self.configs
            ]
            for job in [client.jobs.wait(job.id) for job in posted]:
                if job.module is None:
                    raise SystemExit(f"an undisturbed job ended {job.state}: {job.problem}")
                self._reference.append({bundle.digest for bundle in client.modules.get(job.module).bundles})

    def submit(self) -> None:
        """Submit a job; retry while the API is down."""
        number = len(self.wanted) % len(self.configs)
        with Client(self.stack.url) as client:
            job = _insist(
                lambda: client.jobs.create("digits-low", "digits-high", self.dataset.id, self.configs[number])
            )
        self.wanted[job.id] = self._reference[number]

    def open_jobs(self) -> int:
        """Number of jobs that have not ended. Records their leases."""
        with self.zoo.database.read() as session:
            rows = session.scalars(select(JobRow).where(JobRow.finished_at.is_(None))).all()
        for row in rows:
            if row.lease_worker is not None:
                self.leases[row.id, row.lease_token] = Lease(row.id, row.lease_worker, row.lease_token, 60)
        return len(rows)

    def wait(self) -> None:
        """Wait until all jobs have ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while _insist(self.open_jobs) and time.monotonic() < deadline:
            time.sleep(0.5)


def _insist(what: Callable[[], Result]) -> Result:
    deadline = time.monotonic() + 60
    while True:
        try:
            return what()
        except (ClientError, SQLAlchemyError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def disturb(
    chaos: Chaos, faults: Faults, kinds: list[str], count: int, jobs: int, every: float, dice: random.Random
) -> int:
    """Cause faults at random moments while jobs are open; returns the number of faults."""
    done = 0
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=chaos.console, transient=True) as progress:
        task = progress.add_task("faults", total=count or None)
        for _ in range(jobs):
            chaos.submit()
        while done < count or (jobs and _insist(chaos.open_jobs)):
            while not jobs and _insist(chaos.open_jobs) < IN_FLIGHT:
                chaos.submit()
            time.sleep(dice.uniform(0, 2 * every))
            _insist(chaos.open_jobs)
            kind = kinds[done % len(kinds)]
            progress.update(task, description=f"{kind}, {len(chaos.wanted)} jobs", completed=done)
            done += faults.kinds[kind]() is not False
    chaos.wait()
    return done


@contextmanager
def prepared(workers: int, linked: bool, attempts: int, console: Console) -> Iterator[tuple[Chaos, Link | None]]:
    """Run a stack with digits registered; if `linked`, its last worker is in a separate network."""
    directory = Path(tempfile.mkdtemp(prefix="pnc-chaos-"))
    directory.chmod(0o755)
    services: list[Service] = [kind(directory) for kind in (Redis, Postgres, S3)]
    link = None
    try:
        for service in services:
            service.start()
        with running(directory, workers - linked, services, PNC_MAX_ATTEMPTS=str(attempts)) as stack:
            if linked:
                link = Link("pnc-chaos", os.getpid() % 200 + 1, [service.port for service in services])
                there = {k: v.replace("127.0.0.1", link.host) for k, v in stack.environment.items()}
                stack.add_worker(prefix=link.prefix, **there)
            os.environ.update({k: v for k, v in stack.environment.items() if k.startswith("AWS_")})
            given = {k.removeprefix("PNC_").lower(): v for k, v in stack.environment.items() if k.startswith("PNC_")}
            zoo = open_zoo(Settings(**{**given, "data_dir": directory / "judge"}))  # type: ignore[arg-type]
            torch.set_num_threads(1)
            quiet = Console(file=io.StringIO())
            with Client(stack.url) as client:
                dataset = demo.register(client, demo.prepare(0, quiet), directory, quiet)
            yield Chaos(stack, zoo, dataset, console), link
            zoo.close()
    finally:
        if link is not None:
            link.close()
        for service in services:
            service.stop()
        shutil.rmtree(directory, ignore_errors=True)


def run(given: argparse.Namespace, console: Console) -> tuple[dict[str, object], Verdict]:
    """Start a stack, cause faults, and check the result."""
    dice = random.Random(given.seed)
    kinds = given.kinds.split(",") if given.kinds else []
    linked = not kinds or "link" in kinds
    with prepared(given.workers, linked, given.attempts, console) as (chaos, link):
        faults = Faults(chaos.stack, link, chaos.zoo.database, dice, relentless=given.relentless)
        kinds = kinds or list(faults.kinds)
        console.print("running jobs without faults, to know the expected results")
        if given.short:
            chaos.configs = [replace(config, **SHORT) for config in CONFIGS]
        chaos.learn()
        done = disturb(chaos, faults, kinds, given.faults, given.jobs, given.every, dice)
        verdict = replace(judge(chaos.zoo, chaos.wanted, chaos.leases.values()), taken_away=len(faults.taken_away))
        for line in losses(chaos.zoo, chaos.wanted):
            console.print(line)
    return {"faults": done, "jobs": len(chaos.wanted), **asdict(verdict)}, verdict


def main() -> None:
    """Entry point of the command; the last line is `CHAOS ` and one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=60, help="least number of faults")
    parser.add_argument(
        "--jobs", type=int, default=0, help="number of jobs submitted at once; faults go on until all have ended"
    )
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument(
        "--attempts", type=int, default=MAX_ATTEMPTS, help="attempts without progress after which a job fails"
    )
    parser.add_argument("--every", type=float, default=3.0, help="mean seconds between two faults")
    parser.add_argument("--relentless", action="store_true", help="do not wait until a killed worker is ready again")
    parser.add_argument("--short", action="store_true", help="only jobs of some seconds, for many jobs")
    parser.add_argument("--kinds", default="", help="kinds of faults, separated by commas; default: all")
    parser.add_argument("--seed", type=int, default=0)
    found, verdict = run(parser.parse_args(), Console(stderr=True))
    sys.stdout.write(f"CHAOS {json.dumps(found)}\n")
    sys.exit(0 if verdict.clean else 1)


if __name__ == "__main__":
    main()
