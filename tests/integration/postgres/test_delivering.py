"""Two workers on one database never send two messages to one webhook at the same time."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.db.pages import Window
from app.webhooks import outbox
from app.webhooks import service as webhooks
from app.zoo import Zoo
from tests.integration.test_webhooks import Receiver, receiving
from tests.unit import seeds
from workers import delivery, runner_pool
from workers.delivery import deliver_webhooks
from workers.supervisor import Supervisor

HOOKS, MESSAGES, SLOW = 3, 6, 0.15


@pytest.fixture
def zoos(tmp_path: Path, postgres_url: str) -> Iterator[list[Zoo]]:
    """The same zoo, opened twice, as by two machines."""
    opened = [seeds.new_zoo(tmp_path / name, database_url=postgres_url, webhook_private=True) for name in ("a", "b")]
    yield opened
    for zoo in opened:
        zoo.close()


class Watched:
    """A slow receiver that counts the simultaneous messages of a webhook."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, receiver: Receiver) -> None:
        hook = receiver.path
        with self._lock:
            self.now[hook] += 1
            self.most[hook] = max(self.most[hook], self.now[hook])
        time.sleep(SLOW)
        with self._lock:
            self.now[hook] -= 1
            self.heard[hook] += 1
        receiver.reply(204)


def test_two_deliverers_send_a_webhook_one_message_at_a_time(zoos: list[Zoo], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_pool, "open_runner_pool", lambda: None)
    watched, stop = Watched(), threading.Event()
    with receiving(watched) as (url, _):
        base = url.partition("/hook")[0]
        with zoos[0].database.write() as session:
            hooks = [webhooks.create(session, url=f"{base}/{n}", private=True)[0].id for n in range(HOOKS)]
            for hook in hooks:
                for _ in range(MESSAGES):
                    outbox.post_test(session, hook)
        both = threading.Barrier(2)
        monkeypatch.setattr(delivery.outbox, "is_due", _together(outbox.is_due, both))
        workers = [threading.Thread(target=deliver_webhooks, args=(Supervisor(zoo, stop),)) for zoo in zoos]
        for worker in workers:
            worker.start()
        try:
            deadline = time.monotonic() + 120
            while sum(watched.heard.values()) < HOOKS * MESSAGES and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            stop.set()
            both.abort()
            for worker in workers:
                worker.join()
    assert dict(watched.heard) == {f"/{n}": MESSAGES for n in range(HOOKS)}
    assert set(watched.most.values()) == {1}
    with zoos[0].database.read() as session:
        for hook in hooks:
            assert {row.state for row in outbox.list_deliveries(session, hook, Window()).data} == {"delivered"}


def _together(work: Callable[..., bool], both: threading.Barrier) -> Callable[..., bool]:
    """Make both workers look for messages at the same moment, without pauses, to force the race."""

    def meeting(session: object) -> bool:
        found = work(session)
        try:
            both.wait(0.2)
        except threading.BrokenBarrierError:
            both.reset()
        return found

    return meeting
