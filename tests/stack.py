"""The whole service as on many machines, but without containers: Redis, PostgreSQL, S3, API, serving and Celery workers
as separate processes.

    python -m tests.stack [--workers 2] [--stay]

starts the stack, runs the demo against it and stops the stack; with `--stay` it runs until Ctrl-C.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from tests.services import S3, Postgres, Redis, Service
from tests.services.processes import Process, free_port
from workers.runner_pool import TITLE

START_SECONDS = 180
"""Importing torch takes a worker 8 s of one core, and four busy workers may share two cores with it."""
# Shorter intervals than in production.
QUICK = {
    "PNC_LEASE_SECONDS": "4",
    "PNC_HEARTBEAT_SECONDS": "1",
    "PNC_RING_AGAIN_SECONDS": "3",
    "PNC_CHECKPOINT_SECONDS": "1",
    "PNC_SHARE_SECONDS": "0",
    "PNC_THREADS": "1",
    "PNC_LOG_LEVEL": "info",
}


class Stack:
    """The running service.

    Args:
        directory: Folder of all files, on a path that other users can reach.
        services: The running Redis, PostgreSQL and S3.
        settings: Environment variables of all processes.
    """

    def __init__(self, directory: Path, services: Sequence[Service], settings: dict[str, str]) -> None:
        self.directory, self.services = directory, {service.name: service for service in services}
        self.environment = {**QUICK, **settings}
        for service in services:
            self.environment |= service.environment()
        self.workers: list[Process] = []
        self._before: dict[Process, int] = {}
        """Length of a worker's log at its last start."""
        api, serving = free_port(), free_port()
        self.url, self._serving_url = f"http://127.0.0.1:{api}", f"http://127.0.0.1:{serving}"
        self.environment["PNC_SERVING_URL"] = self._serving_url
        self.api = self.process("api", "-m", "app.cli", "api", "--port", str(api))
        self.serving = self.process("serving", "-m", "app.cli", "serve", "--port", str(serving))

    def process(self, name: str, *arguments: str, prefix: Sequence[str] = (), **settings: str) -> Process:
        """Make a process of the service with a separate data directory, as on another machine; does not start it."""
        home = self.directory / name
        home.mkdir(parents=True, exist_ok=True)
        environment = {**self.environment, "PNC_DATA_DIR": str(home / "data"), **settings}
        variables = [f"{name}={value}" for name, value in environment.items()]
        return Process(["/usr/bin/env", *variables, *prefix, sys.executable, *arguments], home)

    def start(self, workers: int) -> None:
        """Migrate, start all processes and wait until they are ready."""
        migration = self.process("migration", "-m", "app.cli", "migrate")
        migration.start()
        while migration.running:
            time.sleep(0.05)
        fronts = {self.api: self.url, self.serving: self._serving_url}
        for process in (*fronts, *(self._new_worker() for _ in range(workers))):
            process.start()
        for process, url in fronts.items():
            process.wait_until(lambda url=url: answers(url))
        for worker in self.workers:
            worker.wait_until(lambda worker=worker: self.is_ready(worker), START_SECONDS)

    def add_worker(self, *, prefix: Sequence[str] = (), **settings: str) -> Process:
        """Start another worker and wait until it claims jobs."""
        worker = self._new_worker(prefix, **settings)
        self.start_worker(worker)
        return worker

    def _new_worker(self, prefix: Sequence[str] = (), **settings: str) -> Process:
        name = f"worker{len(self.workers)}"
        self.workers.append(self.process(name, "-m", "app.cli", "worker", prefix=prefix, **settings))
        return self.workers[-1]

    def start_worker(self, worker: Process, *, wait: bool = True) -> None:
        """Start or restart a worker and wait until it claims jobs."""
        self._before[worker] = len(said(worker))
        worker.start()
        if wait:
            worker.wait_until(lambda: self.is_ready(worker), START_SECONDS)

    def is_ready(self, worker: Process) -> bool:
        """Whether a worker has logged that it is ready since its last start."""
        return "is ready" in said(worker)[self._before.get(worker, 0) :]

    def stop(self) -> None:
        """Stop the workers, serving and the API; Redis, PostgreSQL and S3 keep running."""
        for process in (*self.workers, self.serving, self.api):
            process.stop()

    def runners(self) -> list[psutil.Process]:
        """The processes of running jobs and steps."""
        found = []
        for worker in self.workers:
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(worker.pid).children(recursive=True) if worker.running else []
        return [process for process in found if is_runner(process)]


def said(process: Process) -> str:
    """The log of a process."""
    return process.log.read_text(errors="replace") if process.log.exists() else ""


def answers(url: str) -> bool:
    """Whether the process at this URL is ready."""
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    return False


def is_runner(process: psutil.Process) -> bool:
    """Whether a process is a worker's child that runs a row."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()).startswith(TITLE)
    return False


@contextmanager
def running(
    directory: Path, workers: int = 2, services: Sequence[Service] | None = None, **settings: str
) -> Iterator[Stack]:
    """Run a stack within a block.

    Args:
        directory: Folder of all files.
        workers: Number of workers.
        services: Running services to use; without them new ones are started, and stopped at the end of the block.
        **settings: Environment variables of all processes.
    """
    own = [] if services is not None else [kind(directory) for kind in (Redis, Postgres, S3)]
    stack = None
    try:
        for service in own:
            service.start()
        stack = Stack(directory, services or own, settings)
        stack.start(workers)
        yield stack
    finally:
        if stack is not None:
            stack.stop()
        for service in own:
            service.stop()


def main() -> None:
    """Start the stack, run the demo, stop the stack."""
    parser = argparse.ArgumentParser(prog="python -m tests.stack", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stay", action="store_true", help="run until Ctrl-C")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="pnc-stack-"))
    directory.chmod(0o755)
    try:
        console.print("starting Redis, PostgreSQL, S3, the API, serving and workers ...")
        with running(directory, given.workers) as stack:
            console.print(f"up: {stack.url} with {given.workers} workers; logs below {directory}")
            from app.demo import run_against

            kept = run_against(stack.url, 0, console)
            if given.stay:
                console.print("Ctrl-C stops it")
                with suppress(KeyboardInterrupt):
                    signal.pause()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(os.EX_OK if kept else 1)


if __name__ == "__main__":
    main()
