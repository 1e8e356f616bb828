"""Killed processes, cancelled jobs and restarted services: no job is lost or run twice, no file is left over."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from app.demo import Material, png
from pnc_client import Client, Dataset
from tests.integration.conftest import LONG, QUICK, Start, Up, fill, start_service, stop_service, wait_until
from tests.stack import is_runner
from workers.runner_pool import TITLE

SHORT_LEASE = {"PNC_LEASE_SECONDS": "3", "PNC_HEARTBEAT_SECONDS": "1"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, material: Material, files: Path) -> Iterator[tuple[Up, Dataset]]:
    """A service with short leases, with networks and images."""
    service = start_service(tmp_path_factory.mktemp("filled") / "data", **SHORT_LEASE)
    yield service, fill(service.url, material, files)
    assert stop_service(service) == 0


@pytest.mark.parametrize("victim", [pytest.param("workers.embedded", marks=pytest.mark.always), TITLE])
def test_a_job_survives_the_death_of_its_worker(filled: tuple[Up, Dataset], victim: str) -> None:
    service, dataset = filled
    with Client(service.url) as client:
        config = replace(QUICK, epochs=30)
        job = client.jobs.create("digits-low", "digits-high", dataset.id, config)
        wait_until(lambda: len(list(client.jobs.trials(job.id))) >= 3, 60)
        service.child(victim).send_signal(signal.SIGKILL)
        job = client.jobs.wait(job.id)
        assert job.state == "succeeded", job.problem
        assert job.attempts == 1
        states = [e.state for e in client.jobs.events(job.id) if e.type == "state"]
        assert states == ["queued", "running", "queued", "running", "succeeded"]
        assert [m.job for m in client.modules.list()].count(job.id) == 1


def test_cancel_ends_a_running_job_and_leaves_nothing(filled: tuple[Up, Dataset]) -> None:
    service, dataset = filled
    with Client(service.url) as client:
        _collect_garbage(service)
        objects, modules = service.objects(), list(client.modules.list())
        begun = set((service.data_dir / "uploads").iterdir())  # processes that other tests have killed leave files
        job = client.jobs.create("digits-low", "digits-high", dataset.id, LONG)
        wait_until(lambda: client.jobs.get(job.id).stage == "inserting", 60)
        asked = time.monotonic()
        client.jobs.cancel(job.id)
        job = client.jobs.wait(job.id)
        assert job.state == "cancelled"
        assert time.monotonic() - asked < 10
        assert job.module is None
        assert list(client.modules.list()) == modules
        _collect_garbage(service)  # the job's checkpoints are objects
        assert service.objects() == objects
        assert set((service.data_dir / "uploads").iterdir()) <= begun
        wait_until(lambda: not any(is_runner(p) for p in service.children()), 5)


def _collect_garbage(service: Up) -> None:
    swept = [sys.executable, "-m", "app.cli", "gc", "--hours", "0", "--data-dir", str(service.data_dir)]
    subprocess.run(swept, check=True, capture_output=True)


def test_a_version_is_checked_while_a_job_runs(filled: tuple[Up, Dataset], material: Material, files: Path) -> None:
    service, dataset = filled
    with Client(service.url) as client:
        job = client.jobs.create("digits-low", "digits-high", dataset.id, LONG)
        wait_until(lambda: client.jobs.get(job.id).state == "running", 30)
        pushed = client.models.push("digits-low", material.target[1], files / "digits-low.safetensors")
        assert client.models.wait("digits-low", pushed.number, timeout=30).status == "ready"
        assert client.jobs.get(job.id).state == "running"
        client.jobs.cancel(job.id)
        client.jobs.wait(job.id)


def test_a_second_service_on_the_same_data_is_refused(filled: tuple[Up, Dataset], start: Start) -> None:
    with pytest.raises(AssertionError, match="ended with 1"):
        start(filled[0].data_dir)


def test_interrupt_gives_the_job_back_a_restart_goes_on_and_children_end_with_the_supervisor(
    filled: tuple[Up, Dataset], start: Start, material: Material
) -> None:
    first, dataset = filled
    with Client(first.url) as client:
        done = client.jobs.wait(client.jobs.create("digits-low", "digits-high", dataset.id, QUICK).id)
        assert done.module is not None
        client.deployments.create("digits", "digits-low")
        client.deployments.attach("digits", done.module)
        answer = client.deployments.predict("digits", png(material.test.images[0]))
        config = replace(QUICK, classes=("5", "6"), epochs=30)
        job = client.jobs.create("digits-low", "digits-high", dataset.id, config)
        wait_until(lambda: client.jobs.get(job.id).state == "running", 30)
    family = first.children()
    assert stop_service(first) == 0
    assert _living(family, 10) == []

    second = start(first.data_dir)
    with Client(second.url) as client:
        wait_until(lambda: client.deployments.get("digits").settled, 20)
        again = client.deployments.predict("digits", png(material.test.images[0]))
        assert [one.name for one in again.classes] == [one.name for one in answer.classes]
        # The module may have another engine now, which changes the last bits.
        assert [one.logit for one in again.classes] == pytest.approx([one.logit for one in answer.classes], rel=1e-4)
        assert again.modules == answer.modules
        job = client.jobs.wait(job.id)
        assert (job.state, job.attempts) == ("succeeded", 0)  # released without using an attempt

    # Its children end with it.
    family = second.children()
    assert len(family) >= 3
    os.kill(second.process.pid, signal.SIGKILL)
    second.process.wait()
    assert _living(family, 15) == []


def _living(family: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Processes that have not ended in time; an ended one may stay a zombie where process 1 reaps no children."""
    _, left = psutil.wait_procs(family, timeout=seconds)
    return [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_children_end_with_a_supervisor_that_is_killed_while_they_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data-dir", str(tmp_path / "data")]
    supervisor = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: len(supervisor.children()) >= 3, 30)
    family = supervisor.children(recursive=True)
    supervisor.kill()
    supervisor.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
