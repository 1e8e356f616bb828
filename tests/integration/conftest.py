"""Fixtures: the real service as processes, and the digits as models and a dataset."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import pytest
import torch
from filelock import FileLock
from rich.console import Console

from app import demo
from pnc_client import Client, Dataset
from pnc_core.config import CloneConfig
from tests.services.fixtures import (  # noqa: F401 - fixtures
    empty_postgres_url,
    postgres_service,
    postgres_template,
    postgres_url,
    redis_service,
    redis_url,
    s3,
    s3_keys,
    s3_service,
    services,
)

QUICK = CloneConfig(classes=("7", "8", "9"), epochs=4, batch_size=64, shortlist=2, views=2)
LONG = CloneConfig(classes=("7", "8"), epochs=400, batch_size=8, shortlist=4)


def words_of(process: psutil.Process) -> list[str]:
    """The command line of a process; empty if the process has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@dataclass
class Up:
    """A running `pnc up`."""

    process: subprocess.Popen[str]
    url: str
    data_dir: Path
    reader: threading.Thread
    """Reads the output, so that its pipe does not fill up."""

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, name: str) -> psutil.Process:
        """The child process that runs a module, or has it as its title."""
        return next(p for p in self.children() if name in (line := words_of(p)) or " ".join(line).startswith(name))

    def object_path(self, digest: str) -> Path:
        return self.data_dir / "objects" / digest[:2] / digest[2:]

    def objects(self) -> set[str]:
        return {p.name for p in (self.data_dir / "objects").rglob("*") if p.is_file()}


Start = Callable[..., Up]


def start_service(data_dir: Path, **settings: str) -> Up:
    command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data-dir", str(data_dir)]
    # On a busy machine two forecasts take longer than the limit that suits a waiting person.
    patient = {"PNC_THREADS": "1", "PNC_ADVICE_SECONDS": "240", "COLUMNS": "300"}
    environment = {**os.environ, **patient, **settings}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"ready: (http://\S+)", line)
        if found:
            reader = threading.Thread(target=_empty, args=(process.stdout,), daemon=True)
            reader.start()
            return Up(process, found[1], data_dir, reader)
    process.stdout.close()
    raise AssertionError(f"pnc up ended with {process.wait()} before it was ready")


def _empty(stream: IO[str]) -> None:
    with stream:
        stream.read()


def stop_service(service: Up) -> int:
    if service.process.poll() is None:
        service.process.send_signal(signal.SIGINT)
    code = service.process.wait(30)
    service.reader.join()
    return code


@pytest.fixture(scope="session", autouse=True)
def hangup_reaches_children() -> None:
    """Undo `nohup` for the processes that the tests start: an ignored SIGHUP is inherited, a handler is not."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts services for one test and stops them."""
    running: list[Up] = []

    def _start(data_dir: Path | None = None, **settings: str) -> Up:
        running.append(start_service(data_dir or tmp_path / "data", **settings))
        return running[-1]

    yield _start
    for service in running:
        stop_service(service)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A service that the tests share."""
    service = start_service(tmp_path_factory.mktemp("service") / "data")
    yield service
    assert stop_service(service) == 0


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> demo.Material:
    """Both networks and the images; made once and shared by all test processes."""
    torch.set_num_threads(1)
    # Under pytest-xdist each process has a folder below the run's folder, which all of them share.
    own = tmp_path_factory.getbasetemp()
    path = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "material.pt"
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            torch.save(demo.prepare(7, Console(file=io.StringIO())), path)
    return torch.load(path, weights_only=False)  # type: ignore[no-any-return]  # noqa: TID251 - our own, of this run


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture
def client(service: Up) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def fill(url: str, material: demo.Material, files: Path) -> Dataset:
    """Register both networks and the images."""
    with Client(url) as client:
        return demo.register(client, material, files, Console(file=io.StringIO()))


@pytest.fixture(scope="session")
def dataset(service: Up, material: demo.Material, files: Path) -> Dataset:
    return fill(service.url, material, files)


@pytest.fixture(scope="session")
def module(service: Up, dataset: Dataset) -> str:
    """Id of a module with the classes 7, 8 and 9 for digits-low."""
    with Client(service.url) as client:
        job = client.jobs.wait(client.jobs.create("digits-low", "digits-high", dataset.id, QUICK).id)
    assert job.state == "succeeded", job.problem
    assert job.module is not None
    return job.module


def wait_until(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
