"""Signals of a terminal and of service managers: the first stops in order, a second Ctrl-C stops at once."""

import hashlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from app.demo import Material
from app.jobs import service as jobs
from app.settings import Settings
from app.zoo import open_zoo
from pnc_client import Client
from tests.integration.conftest import LONG, Start, Up, fill, wait_until, words_of
from tests.services.processes import free_port
from tests.stack import answers, is_runner
from workers.runner_pool import TITLE

SHORT_LEASE = {"PNC_LEASE_SECONDS": "3", "PNC_HEARTBEAT_SECONDS": "1"}
COMMAND = [sys.executable, "-m", "app.cli"]


@pytest.fixture
def at_work(start: Start, material: Material, files: Path) -> tuple[Up, str]:
    """A service in the middle of a job."""
    service = start(**SHORT_LEASE)
    dataset = fill(service.url, material, files)
    with Client(service.url) as client:
        job = client.jobs.create("digits-low", "digits-high", dataset.id, LONG)
        wait_until(lambda: any(is_runner(p) and job.id in " ".join(words_of(p)) for p in service.children()), 60)
        wait_until(lambda: len(list(client.jobs.trials(job.id))) >= 1, 120)
    return service, job.id


def send(service: Up, number: int) -> None:
    """Send a signal to the whole process group, as a terminal does."""
    os.killpg(service.process.pid, number)


def state_of(service: Up, job_id: str) -> tuple[str, int]:
    zoo = open_zoo(Settings(data_dir=service.data_dir))
    try:
        with zoo.database.read() as session:
            job = jobs.get(session, job_id)
            return job.state, job.attempts
    finally:
        zoo.close()


def check_whole(service: Up) -> None:
    """Check that neither the database nor an object is incomplete."""
    with sqlite3.connect(service.data_dir / "zoo.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    paths = [path for path in (service.data_dir / "objects").rglob("*") if path.is_file()]
    assert paths
    for path in paths:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name


def test_a_closed_terminal_ends_pnc_up_in_order(at_work: tuple[Up, str]) -> None:
    service, job = at_work
    family = service.children()
    send(service, signal.SIGHUP)
    assert service.process.wait(60) == 0
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert state_of(service, job) == ("queued", 0)  # released; no lease had to expire
    check_whole(service)


def test_a_second_ctrl_c_ends_pnc_up_at_once_and_leaves_nothing_half_done(
    at_work: tuple[Up, str], start: Start
) -> None:
    service, job = at_work
    family = service.children()
    service.child("workers.embedded").suspend()  # a stopped process cannot end in order, for which it would have 15 s
    send(service, signal.SIGINT)
    time.sleep(2)
    assert service.process.poll() is None
    began = time.monotonic()
    send(service, signal.SIGINT)
    assert service.process.wait(10) == 130
    assert time.monotonic() - began < 8  # the worker would have 13 s more
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    assert state_of(service, job) == ("running", 0)
    check_whole(service)

    again = start(service.data_dir, **SHORT_LEASE)
    with Client(again.url) as client:
        wait_until(lambda: _is_at_work(again, job), 60)
        client.jobs.cancel(job)
        assert client.jobs.wait(job).state == "cancelled"


def _is_at_work(service: Up, job: str) -> bool:
    return any(" ".join(words_of(p)).startswith(f"{TITLE} job {job}") for p in service.children())


def test_ctrl_c_while_pnc_up_starts_ends_it(tmp_path: Path) -> None:
    command = [*COMMAND, "up", "--port", "0", "--data-dir", str(tmp_path)]
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: len(process.children()) >= 3, 60)
    family = process.children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert (process.returncode, b"ready" in said) == (0, False)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_under_nohup_a_closed_terminal_changes_nothing(tmp_path: Path) -> None:
    command = ["nohup", *COMMAND, "up", "--port", "0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        os.killpg(process.pid, signal.SIGHUP)
        time.sleep(2)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.fixture(params=["api", "serve"])
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run only `pnc api` or `pnc serve`, as leader of its process group; yields process and port."""
    subprocess.run([*COMMAND, "migrate", "--data-dir", str(tmp_path)], check=True, capture_output=True)
    port = free_port()
    command = [*COMMAND, request.param, "--port", str(port), "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}"), 60)
        yield process, port
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_a_process_alone_in_order(
    alone: tuple[subprocess.Popen[bytes], int], number: signal.Signals
) -> None:
    process, _ = alone
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=40)
    assert process.returncode == 0
    assert b"Finished server process" in said
    assert b"Traceback" not in said
    assert psutil.wait_procs(family, timeout=5)[1] == []


@pytest.mark.parametrize("alone", ["api"], indirect=True)  # serving shares the code
def test_a_second_ctrl_c_does_not_wait_for_a_request(alone: tuple[subprocess.Popen[bytes], int]) -> None:
    process, port = alone
    interrupt: Callable[[], None] = partial(os.killpg, process.pid, signal.SIGINT)
    with socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(b"POST /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(1)
        interrupt()
        time.sleep(2)
        assert process.poll() is None, "expected the request to be waited for"
        interrupt()
        assert process.wait(5) == 130
    assert process.stderr is not None
    assert b"Ctrl-C again ends at once" in process.stderr.read()


def test_a_process_that_ends_finishes_its_request_and_accepts_no_other(
    alone: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, port = alone
    body = b'{"name": "a"}'
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(head % (b"/v1/deployments/none/predict", len(body)) + body[:4])
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not _accepts(port), 10)
        assert process.poll() is None
        half.sendall(body[4:])
        answer = half.recv(1000)
        # There is no such deployment, and the API alone has no serving process.
        assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 503"))
    assert process.wait(20) == 0


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True
