import threading

from app.zoo import jobs, outbox, webhooks
from app.zoo.pages import Window
from app.zoo.zoo import Zoo
from tests.unit.zoo import seeds
from tests.unit.zoo.test_webhooks import *  # noqa: F403 - on PostgreSQL

URL = "https://hooks.example/pnc"


def test_a_webhook_that_goes_at_the_same_moment_fails_no_job(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        going, staying = (webhooks.create(session, url=URL, events=["job.cancelled"]) for _ in range(2))
        job = seeds.queued(session, zoo)
    ended = threading.Event()

    def cancel() -> None:
        with zoo.database.write() as session:
            jobs.cancel(session, job.id)
        ended.set()

    with zoo.database.write() as session:
        webhooks.delete(session, going.id)
        session.flush()
        canceller = threading.Thread(target=cancel)
        canceller.start()
        assert not ended.wait(1)  # it waits to see which webhooks there are
    canceller.join(30)
    assert ended.is_set()
    with zoo.database.read() as session:
        assert [row.type for row in outbox.list_deliveries(session, staying.id, Window()).data] == ["job.cancelled"]
