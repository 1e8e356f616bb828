"""Whoever sweeps tells a dead worker from one that could not reach the database."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.imports.tables import ImportRow
from app.jobs import runs
from app.jobs import service as jobs
from app.zoo import Zoo
from tests.unit import seeds
from workers import runner_pool
from workers import sweep as sweeping
from workers.supervisor import Supervisor
from workers.sweep import DatabaseContact, sweep_regularly

LEASE_SECONDS = 20


class Clock(threading.Event):
    """Stops sweeping after so many seconds, none of which pass; who waits for it moves the time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.now, self._end = 1000.0, 1000.0 + seconds

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0
        if self.now >= self._end:
            self.set()
        return self.is_set()


def _states(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, outage: tuple[float, float], seconds: float) -> dict[int, str]:
    """A job's state by second; its lease has run out when the sweeper begins to look, or during the outage."""
    clock = Clock(seconds)
    monkeypatch.setattr(sweeping, "time", clock)
    monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
    write, states = zoo.database.write, {}
    began = clock.now
    with write() as session:
        job = seeds.queued(session, zoo)
        assert runs.claim(session, "another") is not None

    @contextmanager
    def down() -> Iterator[Session]:
        second = clock.now - began
        if outage[0] <= second < outage[1]:
            raise OperationalError("select 1", {}, Exception("connection refused"))
        with write() as session:
            held = jobs.get(session, job.id)
            if second >= outage[0] and held.state == "running":
                seeds.expire(session, held)
            yield session
        with zoo.database.read() as session:
            states[int(second)] = jobs.get(session, job.id).state

    monkeypatch.setattr(zoo.database, "write", down)
    sweep_regularly(Supervisor(zoo, clock))
    return states


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[Zoo]:
    zoo = seeds.new_zoo(tmp_path, lease_seconds=LEASE_SECONDS, heartbeat_seconds=2)
    yield zoo
    zoo.close()


def test_a_silent_worker_is_taken_for_dead_at_once(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _states(zoo, monkeypatch, outage=(0, 0), seconds=3)[0] == "queued"


def test_after_an_outage_everybody_has_a_lease_s_time_to_renew(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    states = _states(zoo, monkeypatch, outage=(5, 45), seconds=90)
    back = min(second for second in states if second >= 45)
    given_up = min(second for second, state in states.items() if state == "queued")
    assert back < 45 + sweeping.UNREACHABLE_SECONDS + 1
    assert back + LEASE_SECONDS <= given_up <= back + LEASE_SECONDS + sweeping.SWEEP_SECONDS


def test_a_break_shorter_than_the_gap_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1000)
    monkeypatch.setattr(sweeping, "time", clock)
    contact = DatabaseContact(gap=3, settling=10)
    answers = []
    for seconds in (0, 3, 3, 3.5, 3, 3, 3, 3, 60, 1):
        clock.wait(seconds)
        answers.append(contact.note_success())
    assert answers == [True, True, True, False, False, False, False, True, False, False]


def test_a_database_that_takes_nothing_gives_everybody_time_to_renew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its disk was full: it answered all the while, and no lease could be renewed."""
    clock = Clock(1000)
    monkeypatch.setattr(sweeping, "time", clock)
    contact = DatabaseContact(gap=3, settling=10)
    assert contact.note_success()
    clock.wait(1)
    contact.note_failure()
    answers = []
    for seconds in (1, 3, 3, 3, 3):
        clock.wait(seconds)
        answers.append(contact.note_success())
    assert answers == [False, False, False, False, True]


def test_whatever_goes_wrong_a_loop_goes_on(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, taken = Clock(100), []
    monkeypatch.setattr(sweeping, "time", stop)

    def take() -> bool:
        taken.append(stop.now)
        if len(taken) == 1:
            raise OSError("Cannot allocate memory")
        return False

    sweeping.repeat(take, Supervisor(zoo, stop))
    assert taken[1] - taken[0] == sweeping.UNREACHABLE_SECONDS
    assert len(taken) > 2


def test_an_idle_loop_asks_again_when_another_process_has_written(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, taken, written = Clock(20), [], []
    monkeypatch.setattr(sweeping, "time", stop)
    wait = stop.wait

    def take() -> bool:
        taken.append(stop.now)
        return False

    def write_once(timeout: float | None = None) -> bool:
        if stop.now > 1009 and not written:
            with zoo.database.write() as session:
                session.execute(text("CREATE TABLE written (x)"))
            written.append(stop.now)
        return wait(timeout)

    monkeypatch.setattr(stop, "wait", write_once)
    sweeping.repeat(take, Supervisor(zoo, stop))
    pauses = [round(later - sooner, 1) for sooner, later in pairwise(taken)]
    early = [pause for pause in pauses if pause < sweeping.UNCHANGED_SECONDS]
    assert len(early) == 1
    assert max(pauses) <= sweeping.UNCHANGED_SECONDS + sweeping.POLL_SECONDS
    assert min(moment - written[0] for moment in taken if moment > written[0]) <= 2 * sweeping.POLL_SECONDS


def test_whatever_goes_wrong_a_sweeper_goes_on(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, swept = Clock(60), []

    def sweep(*_: object) -> None:
        swept.append(stop.now)
        if len(swept) == 1:
            raise RecursionError("a row that nobody thought of")

    monkeypatch.setattr(sweeping, "time", stop)
    monkeypatch.setattr(sweeping.recovery, "sweep", sweep)
    monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
    sweep_regularly(Supervisor(zoo, stop))
    assert swept[1] - swept[0] >= sweeping.UNREACHABLE_SECONDS
    assert len(swept) > 2


class Marks:
    """Wake-ups of a Redis: answers in their order, and the turns of this worker."""

    def __init__(self, stop: Clock, answers: list[bool | None], turns: set[str]) -> None:
        self._stop, self._answers, self._turns = stop, answers, turns

    def wait(self, table: str, seconds: int) -> bool | None:
        answer = self._answers.pop(0) if self._answers else False
        if answer is False:
            self._stop.wait(seconds)
        return answer

    def has_turn(self, work: str, seconds: float) -> bool:
        return work in self._turns


def _looked(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, answers: list[bool | None], turns: set[str]) -> list[float]:
    """Seconds at which a loop looked for a row within 20 seconds."""
    stop, looked = Clock(20), []
    monkeypatch.setattr(sweeping, "time", stop)
    monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
    worker = Supervisor(zoo, stop)
    worker.wake_ups = Marks(stop, answers, turns)  # type: ignore[assignment]
    sweeping.repeat(lambda: bool(looked.append(stop.now - 1000)), worker, ImportRow)
    return looked


def test_a_loop_looks_at_the_database_only_after_a_mark_or_in_its_turn(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _looked(zoo, monkeypatch, [], set()) == [0], "once at the start"
    assert _looked(zoo, monkeypatch, [False, False, False, True], set()) == [0, 3]
    assert len(_looked(zoo, monkeypatch, [], {"imports"})) == 20


def test_without_redis_a_loop_looks_every_few_seconds(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = _looked(zoo, monkeypatch, [None, None, None], set())
    assert looked[:4] == [0, 2, 4, 6]


def test_only_the_worker_that_has_the_turn_recovers_rows_and_collects(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: dict[bool, int] = {}
    for has_turn in (True, False):
        stop, calls = Clock(30), []
        monkeypatch.setattr(sweeping, "time", stop)
        monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
        monkeypatch.setattr(sweeping.recovery, "sweep", lambda *_, calls=calls: calls.append("rows"))
        monkeypatch.setattr(sweeping.garbage, "collect", lambda *_, calls=calls: calls.append("garbage"))
        worker = Supervisor(zoo, stop)
        worker.wake_ups = Marks(stop, [], {"sweep", "garbage"} if has_turn else set())  # type: ignore[assignment]
        sweep_regularly(worker)
        swept[has_turn] = len(calls)
    assert swept == {True: 31, False: 0}


def test_a_worker_without_the_turn_keeps_in_contact_and_can_take_over_at_once(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, recovered = Clock(60), []
    monkeypatch.setattr(sweeping, "time", stop)
    monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
    monkeypatch.setattr(sweeping.recovery, "sweep", lambda *_: recovered.append(stop.now))
    worker = Supervisor(zoo, stop)
    worker.wake_ups = marks = Marks(stop, [], set())  # type: ignore[assignment]
    wait = stop.wait

    def take_over(timeout: float | None = None) -> bool:
        if stop.now >= 1050:
            marks._turns = {"sweep"}
        return wait(timeout)

    monkeypatch.setattr(stop, "wait", take_over)
    sweep_regularly(worker)
    assert 1050 <= recovered[0] <= 1052
