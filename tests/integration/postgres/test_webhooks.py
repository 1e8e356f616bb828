"""The database's part of the unit tests of webhooks, and a race that is impossible on SQLite."""

import threading

from app.db.pages import Window
from app.jobs import service as jobs
from app.webhooks import outbox
from app.webhooks import service as webhooks
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.webhooks.test_service import (  # noqa: F401 - on PostgreSQL
    test_a_change_that_is_rolled_back_tells_nothing,
    test_a_job_tells_of_every_state_and_only_of_states,
    test_a_message_is_taken_once_and_a_webhook_gets_one_at_a_time,
    test_a_sender_that_fell_silent_loses_its_message_and_its_word,
    test_deleting_takes_deliveries_along_and_fences_who_sends,
    test_what_fails_for_days_is_given_up_and_its_webhook_disabled,
)

URL = "https://hooks.example/pnc"


def test_a_webhook_that_goes_at_the_same_moment_fails_no_job(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        going, staying = (webhooks.create(session, url=URL, events=["job.cancelled"])[0] for _ in range(2))
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
        assert not ended.wait(1)  # it waits for the lock to read the webhooks
    canceller.join(30)
    assert ended.is_set()
    with zoo.database.read() as session:
        assert [row.type for row in outbox.list_deliveries(session, staying.id, Window()).data] == ["job.cancelled"]
