"""Celery workers on real Redis and PostgreSQL: no job is lost or run twice, and results do not change."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import create_engine, text

from app.demo import Material
from pnc_client import Client, Dataset, Job
from pnc_core.config import CloneConfig
from tests.integration.collector import Collector, collecting
from tests.integration.conftest import QUICK, fill, wait_until
from tests.services import Postgres, Redis
from tests.services.processes import free_port
from tests.stack import Stack, said
from tests.unit.db.test_expansion import contract, expand

SHARED = replace(QUICK, epochs=16, shortlist=4)
STEADY = replace(QUICK, epochs=30)
LONG = replace(QUICK, epochs=400, shortlist=2)
Submit = Callable[[CloneConfig], Job]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
    redis_service: Redis,
    postgres_service: Postgres,
    postgres_template: str,
    material: Material,
    files: Path,
    collector: Collector,
) -> Iterator[tuple[Stack, Dataset]]:
    """API and serving on a new database, with digits registered and objects in a shared directory."""
    redis_service.restart()
    directory = tmp_path_factory.mktemp("stack")
    database = postgres_service.create("cluster", postgres_template)
    settings = {"PNC_STORE_URL": str(directory / "objects"), "PNC_DATABASE_URL": database}
    stack = Stack(directory, [redis_service], {**settings, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    stack.start(workers=1)
    yield stack, fill(stack.url, material, files)
    stack.stop()
    postgres_service.drop("cluster")


@pytest.fixture
def stack(shared: tuple[Stack, Dataset]) -> Iterator[Stack]:
    """The shared stack with one idle worker."""
    stack, _ = shared
    if not stack.workers:
        stack.add_worker()
    yield stack
    first, *more = stack.workers
    for worker in more if first.running else stack.workers:
        worker.stop()
    stack.workers[:] = [first] if first.running else []
    wait_until(lambda: stack.runners() == [], 20)


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


@pytest.fixture
def dataset(shared: tuple[Stack, Dataset]) -> Dataset:
    return shared[1]


@pytest.fixture
def submit(client: Client, dataset: Dataset) -> Submit:
    return lambda config: client.jobs.create("digits-low", "digits-high", dataset.id, config)


@pytest.fixture(scope="module")
def undisturbed(shared: tuple[Stack, Dataset]) -> set[str]:
    """The result of `STEADY` without faults."""
    stack, dataset = shared
    if not stack.workers:
        stack.add_worker()
    with Client(stack.url) as client:
        return _digests(
            client, client.jobs.wait(client.jobs.create("digits-low", "digits-high", dataset.id, STEADY).id)
        )


def _digests(client: Client, job: Job) -> set[str]:
    assert job.state == "succeeded", job.problem
    assert job.module is not None
    return {bundle.digest for bundle in client.modules.get(job.module).bundles}


def _states(client: Client, job: Job) -> list[str]:
    return [event.state for event in client.jobs.events(job.id) if event.type == "state"]


def test_helpers_take_trials_and_the_bundle_is_the_same(stack: Stack, client: Client, submit: Submit) -> None:
    alone = client.jobs.wait(submit(SHARED).id)
    stack.add_worker()
    together = client.jobs.wait(submit(SHARED).id)
    assert _digests(client, alone) == _digests(client, together)
    helped = [log.count(": claimed") for log in (_said(stack, n, "step stp_") for n in (0, 1))]
    assert sum(helped) >= 1, "the other worker ran no trial"
    rows = [[(t.target_position, t.round, t.score) for t in client.jobs.trials(job.id)] for job in (alone, together)]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_what_a_helper_does_is_a_part_of_the_request_s_trace(
    stack: Stack, client: Client, submit: Submit, collector: Collector
) -> None:
    stack.add_worker()
    client.jobs.wait(submit(SHARED).id)

    def is_whole(path: str) -> bool:
        return path.startswith("pnc-runner: POST /v1/cloning-jobs > attempt > job > ") and "> help > step" in path

    wait_until(lambda: any(map(is_whole, collector.paths())), 20)  # messages are sent again every few seconds


def _said(stack: Stack, worker: int, about: str) -> str:
    lines = stack.workers[worker].log.read_text().splitlines()
    return "\n".join(line for line in lines if about in line)


def test_a_job_whose_worker_is_killed_goes_on_elsewhere_to_the_same_bundle(
    stack: Stack, client: Client, submit: Submit, undisturbed: set[str]
) -> None:
    job = submit(STEADY)
    wait_until(lambda: client.jobs.get(job.id).stage == "inserting", 60)
    time.sleep(2)
    stack.workers[0].kill()
    stack.add_worker()
    ended = client.jobs.wait(job.id)
    assert _digests(client, ended) == undisturbed
    assert [a.outcome for a in client.jobs.attempts(job.id)] == ["silent", "succeeded"]
    assert [m.job for m in client.modules.list()].count(job.id) == 1


def test_a_worker_that_is_told_to_end_gives_its_job_back_and_uses_no_attempt(
    stack: Stack, client: Client, submit: Submit
) -> None:
    job = submit(LONG)
    wait_until(lambda: client.jobs.get(job.id).stage == "inserting", 60)
    worker = psutil.Process(stack.workers[0].pid)
    asked = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    worker.wait(20)
    assert time.monotonic() - asked < 15
    assert client.jobs.get(job.id).state == "queued"
    assert [a.outcome for a in client.jobs.attempts(job.id)] == ["released"]
    client.jobs.cancel(job.id)


def test_a_paused_job_goes_on_where_it_stood(
    stack: Stack, client: Client, submit: Submit, undisturbed: set[str]
) -> None:
    job = submit(STEADY)
    wait_until(lambda: client.jobs.get(job.id).stage == "inserting", 60)
    client.jobs.pause(job.id)
    wait_until(lambda: client.jobs.get(job.id).state == "paused", 20)
    assert stack.runners() == []
    client.jobs.resume(job.id)
    ended = client.jobs.wait(job.id)
    assert _digests(client, ended) == undisturbed
    assert ended.attempts == 0
    assert _states(client, job) == ["queued", "running", "pausing", "paused", "queued", "running", "succeeded"]


def test_a_job_outlives_the_loss_of_all_messages(
    stack: Stack, client: Client, submit: Submit, redis_service: Redis
) -> None:
    stack.workers[0].stop()
    job = submit(QUICK)
    redis_service.restart()  # Redis stores nothing on disk
    stack.start_worker(stack.workers[0])
    assert client.jobs.wait(job.id).state == "succeeded"


def test_posting_works_while_the_broker_is_dead(
    stack: Stack, client: Client, submit: Submit, redis_service: Redis
) -> None:
    redis_service.kill()
    asked = time.monotonic()
    job = submit(QUICK)
    assert time.monotonic() - asked < 10
    assert job.state == "queued"
    redis_service.restart()
    assert client.jobs.wait(job.id).state == "succeeded"


def test_a_job_that_takes_too_long_is_ended(client: Client, dataset: Dataset) -> None:
    job = client.jobs.create("digits-low", "digits-high", dataset.id, LONG, max_seconds=4)
    ended = client.jobs.wait(job.id)
    assert ended.state == "failed"
    assert ended.problem is not None
    assert ended.problem["code"] == "deadline_exceeded"
    again = client.jobs.retry(job.id)
    assert (again.state, again.max_seconds) == ("queued", 4)
    client.jobs.cancel(again.id)


def test_jobs_for_an_accelerator_wait_for_a_worker_that_has_one(client: Client, dataset: Dataset) -> None:
    waiting = client.jobs.create("digits-low", "digits-high", dataset.id, QUICK, device="cuda")
    done = client.jobs.create("digits-low", "digits-high", dataset.id, QUICK, device="cpu")
    assert client.jobs.wait(done.id).state == "succeeded"
    assert client.jobs.get(waiting.id).state == "queued"
    assert client.jobs.cancel(waiting.id).state == "cancelled"


def test_a_closed_terminal_ends_a_worker_in_order(stack: Stack, client: Client, submit: Submit) -> None:
    job = submit(LONG)
    wait_until(lambda: client.jobs.get(job.id).stage is not None and stack.runners() != [], 120)
    worker = stack.workers[0]
    family = psutil.Process(worker.pid).children(recursive=True)
    assert worker.pid is not None
    os.killpg(worker.pid, signal.SIGHUP)
    wait_until(lambda: not worker.running, 60)
    assert psutil.wait_procs(family, timeout=60)[1] == []
    found = client.jobs.get(job.id)
    assert (found.state, found.attempts) == ("queued", 0)
    assert client.jobs.cancel(job.id).state == "cancelled"


def test_a_second_ctrl_c_ends_a_worker_at_once(stack: Stack, client: Client, submit: Submit) -> None:
    job = submit(LONG)
    wait_until(lambda: client.jobs.get(job.id).stage is not None and stack.runners() != [], 120)
    worker = stack.workers[0]
    family = psutil.Process(worker.pid).children(recursive=True)
    assert worker.pid is not None
    for runner in stack.runners():
        runner.suspend()  # a stopped process ignores SIGTERM, for which it would have 5 s
    os.killpg(worker.pid, signal.SIGINT)
    time.sleep(1)
    assert worker.running
    began = time.monotonic()
    os.killpg(worker.pid, signal.SIGINT)
    wait_until(lambda: not worker.running, 4)
    assert time.monotonic() - began < 4
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert "Ctrl-C again ends at once" in said(worker)
    stack.add_worker()
    wait_until(lambda: stack.runners() != [], 60)  # the first lease has expired, and the job is claimed again
    client.jobs.cancel(job.id)
    assert client.jobs.wait(job.id).state == "cancelled"


def test_a_worker_says_how_it_is(stack: Stack, client: Client, submit: Submit) -> None:
    port = free_port()
    worker = stack.add_worker(PNC_HEALTH_PORT=str(port))
    job = submit(LONG)
    wait_until(lambda: client.jobs.get(job.id).state == "running", 60)
    assert [_probe(port, path) for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 404]
    client.jobs.cancel(job.id)
    client.jobs.wait(job.id)
    assert _probe(port, "/readyz") == 200
    worker.stop()
    with pytest.raises(httpx.ConnectError):
        _probe(port, "/healthz")


def _probe(port: int, path: str) -> int:
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30, trust_env=False).status_code


def test_a_running_cluster_outlives_the_migration_of_the_next_release(
    stack: Stack, client: Client, submit: Submit, undisturbed: set[str]
) -> None:
    """All processes stay, while the schema becomes a later one under a running job."""
    job = submit(STEADY)
    wait_until(lambda: client.jobs.get(job.id).state == "running", 60)
    database = create_engine(stack.environment["PNC_DATABASE_URL"])
    with database.begin() as connection:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
        expand(connection)
    try:
        assert client.ready()
        assert _digests(client, client.jobs.wait(job.id)) == undisturbed
        assert _digests(client, client.jobs.wait(submit(STEADY).id)) == undisturbed
        assert client.ready()
    finally:
        with database.begin() as connection:
            contract(connection, str(revision))
        database.dispose()
