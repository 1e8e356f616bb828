"""Faults that pass by themselves take nothing away: what was served is served again, what is wanted stays wanted."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import httpx
import pytest
import torch
from sqlalchemy.exc import OperationalError

from app.deployments import replicas
from app.deployments import service as deployments
from app.errors import DigestMismatch, Loading, StoreUnavailable
from app.serving.engine.engine import Engine, Limits
from app.serving.engine.modes import Mode
from app.serving.loader import registry as registries
from app.serving.loader import reports
from app.serving.loader.registry import Registry
from app.zoo import Zoo, open_zoo
from tests.unit.serving import world
from tests.unit.serving.world import NAME, World

AWAY = OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly"))
PASSING: dict[str, Exception] = {
    "store away": StoreUnavailable("expected the object store to answer, got none"),
    "disk full": OSError(errno.ENOSPC, "No space left on device"),
    "database away": AWAY,
    "memory": MemoryError(),
    "torch's memory": RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    "device's memory": torch.OutOfMemoryError("CUDA out of memory"),
}


class Process:
    """A serving process without its thread and its socket: what it does happens when a test says so."""

    def __init__(self, here: World) -> None:
        self.zoo: Zoo = open_zoo(here.zoo.settings)
        self.registry = Registry(self.zoo, Engine(Limits(8, 0.001, 8)), Mode(False, torch.float32, False, "cpu"))

    def follow(self) -> None:
        """One round of what its thread does."""
        self.registry.follow()

    def die(self) -> None:
        """End it as a kill does: it says nothing."""
        self.zoo.close()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before the next attempt."""
    monkeypatch.setattr(registries, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(reports, "MOST_SECONDS", 0.0)


@contextmanager
def store_away(zoo: Zoo, error: Exception | None = None) -> Iterator[None]:
    """Nothing can be read from the store."""

    def fails(key: str) -> Any:
        raise error or PASSING["store away"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo.store, "local", fails)
        patch.setattr(zoo.store, "open", fails)
        yield


@contextmanager
def no_writing(zoo: Zoo) -> Iterator[None]:
    """The database goes away between reading and writing."""

    def fails() -> Any:
        raise AWAY

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(zoo.database), "write", lambda _: fails())
        yield


def _row(here: World) -> tuple[int, int | None, dict[str, Any] | None]:
    with here.zoo.database.read() as session:
        row = deployments.get(session, NAME)
    return row.generation, row.observed_generation, row.observed_problem


@pytest.mark.always
def test_what_was_served_survives_a_lost_report_and_a_restart_without_the_store(fresh: World) -> None:
    first = Process(fresh)
    with no_writing(first.zoo):
        first.follow()
    assert first.registry.get(NAME).generation == 1
    first.die()
    second = Process(fresh)
    with store_away(second.zoo):
        for _ in range(3):
            second.follow()
        with pytest.raises(Loading, match="object store"):
            second.registry.get(NAME)
    assert _row(fresh)[0] == 1
    second.follow()
    assert second.registry.get(NAME).generation == 1
    assert _row(fresh) == (1, 1, None)
    second.die()


def test_a_report_is_repeated_until_it_is_written(fresh: World) -> None:
    process = Process(fresh)
    with no_writing(process.zoo):
        for _ in range(3):
            process.follow()
    assert _row(fresh) == (1, None, None)
    process.follow()
    assert _row(fresh) == (1, 1, None)
    with fresh.zoo.database.read() as session:
        assert [one.generation for one in replicas.observations(session, NAME).values() if one] == [1]
    process.die()


def test_a_refusal_is_repeated_until_it_is_written(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(fresh)
    process.follow()
    generation = fresh.want([fresh.modules[0]])
    damage(process.zoo, monkeypatch)
    with no_writing(process.zoo):
        process.follow()
    assert _row(fresh)[:2] == (generation, 1)
    process.follow()
    assert _row(fresh)[0] == generation + 1  # taken back
    process.follow()
    assert process.registry.get(NAME).generation == generation + 1
    process.die()


def damage(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes in the store have changed for good."""
    from app.serving.loader import building, snapshot

    def fails(*_: object) -> Any:
        raise DigestMismatch.at("/sha256", "digest_mismatch", "expected other bytes, got these")

    for module in (snapshot, building):
        monkeypatch.setattr(module, "verified_file", fails)


def test_a_served_generation_whose_report_was_lost_stays_even_when_its_bytes_are_damaged(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Process(fresh)
    with no_writing(first.zoo):
        first.follow()
    first.die()
    damage(fresh.zoo, monkeypatch)
    second = Process(fresh)
    second.follow()
    assert _row(fresh)[0] == 1
    problem = _row(fresh)[2]
    assert problem is not None
    assert problem["code"] == "digest_mismatch"
    second.die()
    assert not list((fresh.zoo.settings.data_dir / "unreported").iterdir())


def test_what_another_database_has_not_had_is_not_reported(fresh: World) -> None:
    folder = fresh.zoo.settings.data_dir / "unreported"
    folder.mkdir()
    (folder / "rep_1.json").write_text(f'[["{NAME}", "ver_of_another_zoo", 1], ["gone", "ver_1", 7]]')
    (folder / "rep_2.json").write_text("half a fi")
    process = Process(fresh)
    with store_away(process.zoo):
        process.follow()
    assert _row(fresh) == (1, None, None)
    assert not list(folder.iterdir())
    process.die()


def test_a_new_generation_waits_while_the_reason_is_a_passing_one(fresh: World) -> None:
    process = Process(fresh)
    process.follow()
    served = 1
    for number, (name, error) in enumerate(PASSING.items()):
        generation = fresh.want([fresh.modules[number % 3]])
        with store_away(process.zoo, error):
            for _ in range(2):
                process.follow()
            assert process.registry.refusal(NAME, generation) is None, name
            with pytest.raises(Loading):
                process.registry.check_loaded(NAME, generation)
            assert process.registry.get(NAME).generation == served, name  # what is served goes on
            assert process.registry.settled()
        assert _row(fresh) == (generation, served, None), name
        process.follow()
        process.registry.check_loaded(NAME, generation)
        assert process.registry.get(NAME).generation == generation, name
        assert _row(fresh) == (generation, generation, None), name
        served = generation
    process.die()


FAULTS: dict[str, Callable[[Process], Any]] = {
    "report": lambda process: no_writing(process.zoo),
    "store": lambda process: store_away(process.zoo),
    "memory": lambda process: store_away(process.zoo, MemoryError()),
}


@pytest.mark.always
def test_passing_faults_in_any_order_with_a_restart_after_each_take_nothing_away(fresh: World) -> None:
    for number, order in enumerate(permutations(FAULTS)):
        generation = fresh.want([fresh.modules[number % 3]])
        for name in order:
            process = Process(fresh)
            with FAULTS[name](process):
                process.follow()
                process.follow()
            process.die()
        process = Process(fresh)
        process.follow()
        assert process.registry.get(NAME).generation == generation, order
        assert _row(fresh) == (generation, generation, None), order
        process.die()


def test_a_generation_that_waited_and_is_damaged_is_refused(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(fresh)
    process.follow()
    generation = fresh.want([fresh.modules[0]])
    with store_away(process.zoo):
        process.follow()
    damage(process.zoo, monkeypatch)
    process.follow()
    refusal = process.registry.refusal(NAME, generation)
    assert refusal is not None
    assert refusal.code == "digest_mismatch"
    assert _row(fresh)[0] == generation + 1
    process.die()


def test_a_served_deployment_says_why_it_is_not_loaded_after_a_restart(fresh: World) -> None:
    first = Process(fresh)
    first.follow()
    first.die()
    second = Process(fresh)
    with store_away(second.zoo):
        second.follow()
    generation, observed, problem = _row(fresh)
    assert (generation, observed) == (1, 1)
    assert problem is not None
    assert problem["code"] == "loading"
    second.follow()
    assert _row(fresh) == (1, 1, None)
    second.die()


def test_an_empty_store_is_another_one_and_loses_nothing(fresh: World) -> None:
    process = Process(fresh)
    root = fresh.zoo.settings.data_dir / "objects"
    away = root.rename(root.with_name("elsewhere"))
    root.mkdir()
    process.follow()
    with pytest.raises(Loading):
        process.registry.get(NAME)
    assert _row(fresh)[0] == 1
    root.rmdir()
    process.follow()  # not even a directory
    assert _row(fresh)[0] == 1
    away.rename(root)
    process.follow()
    assert process.registry.get(NAME).generation == 1
    process.die()


def test_a_module_that_could_not_be_read_ahead_for_a_moment_is_read_ahead_later(fresh: World) -> None:
    process = Process(fresh)
    process.registry.sync()
    with store_away(process.zoo):
        process.follow()
    process.follow()
    assert len(process.registry._builder.modules._kept) == 3
    process.die()


def test_a_process_ends_though_the_database_is_away(fresh: World) -> None:
    process = Process(fresh)
    process.registry.start()
    deadline = time.monotonic() + 20
    while _row(fresh)[1] is None and time.monotonic() < deadline:
        time.sleep(0.05)
    with no_writing(process.zoo):
        process.registry.close()
    process.die()


def test_while_it_is_loaded_a_deployment_answers_503(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.serving.loader import snapshot

    def fails(*_: object) -> Any:
        raise PASSING["store away"]

    raw = {"Inference-Header-Content-Length": "0"}
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "verified_file", fails)
        with world.serving(fresh.zoo.settings) as (address, _), httpx.Client(base_url=f"http://{address}") as client:
            asked = {
                "sync": client.post(f"/internal/sync/{NAME}?generation=1"),
                "infer": client.post(f"/v2/models/{NAME}/infer", content=bytes(64), headers=raw),
                "predict": client.post(f"/v1/deployments/{NAME}/predict", content=b"png"),
            }
            for name, answer in asked.items():
                assert answer.status_code == 503, (name, answer.text)
                assert int(answer.headers["Retry-After"]) >= 1, name
                assert "object store" in answer.text, name
            patch.undo()
            deadline = time.monotonic() + 20
            while client.get(f"/v2/models/{NAME}").status_code != 200 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert client.post(f"/v2/models/{NAME}/infer", content=bytes(64), headers=raw).status_code == 200
