"""Jobs per minute and seconds per job with 1, 2 and 4 workers, and the cost of the queue.

    python -m benchmarks.throughput --out results/throughput        # --quick for a short test

starts Redis, PostgreSQL, S3, API and Celery workers on this machine as `make stack` does. Real jobs compute, and more
workers than cores only share the cores; the report therefore has processor seconds and waiting times as well.
Pretended jobs sleep for a fixed time, as if each worker had its own machine. Their time beyond the sleep is the cost of
the queue: messages, claims, a child process, heartbeats, bundles in the store.
"""

import io
import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated

import psutil
import torch
import typer
from rich.console import Console
from rich.progress import track

from app import demo
from benchmarks.reports.tables import markdown
from benchmarks.service.sleeping_worker import SECONDS
from pnc_client import Client, Job
from pnc_core.config import CloneConfig
from tests.services.processes import Process
from tests.stack import Stack, running

CONFIG = CloneConfig(classes=("7", "8", "9"), epochs=8, batch_size=64, shortlist=3, views=1, screen_images=200)
WORKERS = (1, 2, 4)
PRETENDED = 1.0
"""Seconds that a pretended job sleeps."""
COLUMNS = ("jobs", "jobs_a_minute", "job_seconds", "waiting_seconds", "cpu_seconds_a_job")


@dataclass(frozen=True)
class Row:
    """Result of one set of jobs on a number of workers."""

    kind: str
    """`many`: jobs at the same time; `one`: a single job, whose trials all workers share; `pretended`: jobs that
    sleep."""
    workers: int
    jobs: int
    jobs_a_minute: float
    job_seconds: float
    """Mean time from a job's start to its end."""
    waiting_seconds: float
    """Mean time from a job's submission to its start."""
    cpu_seconds_a_job: float
    """Processor seconds of all workers and their children, divided by the number of jobs."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for results.json and workers.md.")],
    jobs: Annotated[int, typer.Option(help="Real jobs for every number of workers.", min=1)] = 12,
    pretended: Annotated[int, typer.Option(help="Pretended jobs for each worker.", min=1)] = 20,
    quick: Annotated[bool, typer.Option(help="Few jobs: a test of the command, with imprecise results.")] = False,
) -> None:
    """Measure and write a report."""
    jobs, pretended = (2, 2) if quick else (jobs, pretended)
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="pnc-throughput-"))
    directory.chmod(0o755)
    rows: list[Row] = []
    try:
        with running(directory, 0) as stack, Client(stack.url) as client:
            dataset = _registered(stack, client, directory)
            for kind in ("real", "pretended"):
                for workers in track(WORKERS, f"{kind} jobs", console=console):
                    while len(stack.workers) < workers:
                        _add(stack, kind)
                    if kind == "real":
                        rows += [
                            measure_jobs(stack, client, dataset, "many", jobs),
                            measure_jobs(stack, client, dataset, "one", 1),
                        ]
                    else:
                        rows.append(measure_jobs(stack, client, dataset, kind, pretended * workers))
                _dismiss(stack)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    records = [asdict(row) for row in rows]
    (out / "results.json").write_text(json.dumps(records, indent=1) + "\n")
    table = markdown(records, ("kind", "workers"), (), COLUMNS).replace("splits", "runs")
    (out / "workers.md").write_text(table + "\n")
    console.print(table)


def measure_jobs(stack: Stack, client: Client, dataset: str, kind: str, count: int) -> Row:
    """Submit `count` jobs at once and wait for all of them."""
    before, began = _processor_seconds(stack), time.perf_counter()
    posted = [
        client.jobs.create("digits-low", "digits-high", dataset, replace(CONFIG, seed=seed)) for seed in range(count)
    ]
    done = [client.jobs.wait(job.id) for job in posted]
    passed, spent = time.perf_counter() - began, _processor_seconds(stack) - before
    if any(job.state != "succeeded" for job in done):
        raise SystemExit(
            f"expected succeeded jobs, got the problems {[job.problem for job in done if job.state != 'succeeded']}"
        )
    workers = len(stack.workers)
    return Row(
        kind=kind,
        workers=workers,
        jobs=count,
        jobs_a_minute=60 * count / passed,
        job_seconds=mean(_ran(job) for job in done),
        waiting_seconds=mean(_waited(job) for job in done),
        cpu_seconds_a_job=spent / count,
    )


def _registered(stack: Stack, client: Client, directory: Path) -> str:
    """Register both networks and the images; a temporary worker validates them. Returns the dataset's id."""
    torch.set_num_threads(1)
    _add(stack, "real")
    quiet = Console(file=io.StringIO())
    dataset = demo.register(client, demo.prepare(0, quiet), directory, quiet)
    _dismiss(stack)
    return dataset.id


def _add(stack: Stack, kind: str) -> None:
    if kind == "real":
        stack.add_worker()
        return
    name = f"sleeping-worker{len(stack.workers)}"
    worker = stack.process(name, "-m", "benchmarks.service.sleeping_worker", **{SECONDS: str(PRETENDED)})
    stack.workers.append(worker)
    stack.start_worker(worker)


def _dismiss(stack: Stack) -> None:
    while stack.workers:
        stack.workers.pop().stop()


def _processor_seconds(stack: Stack) -> float:
    return sum(_spent(worker) for worker in stack.workers)


def _spent(worker: Process) -> float:
    """Processor seconds of a worker, of its running children, and of its ended children."""
    own = psutil.Process(worker.pid)
    return sum(sum(process.cpu_times()[:4]) for process in (own, *own.children(recursive=True)))


def _ran(job: Job) -> float:
    assert job.started_at is not None
    assert job.finished_at is not None
    return (job.finished_at - job.started_at).total_seconds()


def _waited(job: Job) -> float:
    assert job.started_at is not None
    return (job.started_at - job.created_at).total_seconds()


if __name__ == "__main__":
    typer.run(main)
