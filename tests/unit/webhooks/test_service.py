import json
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.db.pages import Window
from app.deployments import reports
from app.deployments import service as deployments
from app.deployments.canary import service as canaries
from app.errors import Conflict, Invalid, LeaseLost, NotFound
from app.jobs import runs
from app.jobs import service as jobs
from app.webhooks import outbox
from app.webhooks import service as webhooks
from app.webhooks.outbox import Reception, RetryPolicy
from app.webhooks.tables import DeliveryRow, WebhookRow
from app.zoo import Zoo
from pnc_client.schemas.webhooks import Event
from tests.unit import seeds

URL = "https://hooks.example/pnc"
PATIENCE = RetryPolicy(timedelta(seconds=5), timedelta(days=3))
GOOD, BAD = Reception(204), Reception(500, "oops", "expected 2xx, got 500")


def _hook(session: Session, *events: str) -> WebhookRow:
    return webhooks.create(session, url=URL, events=events)[0]


def _told(session: Session, hook: WebhookRow) -> list[DeliveryRow]:
    return list(reversed(outbox.list_deliveries(session, hook.id, Window(100)).data))


def _fail(session: Session, answer: Reception = BAD) -> None:
    taken = outbox.claim(session, "sender")
    assert taken is not None
    outbox.settle(session, taken[0], answer, PATIENCE)


def _later(session: Session, row: DeliveryRow) -> None:
    row.due_at = clock.now(session) - timedelta(seconds=1)
    session.flush()


def test_a_job_tells_of_every_state_and_only_of_states(zoo: Zoo, session: Session) -> None:
    hook = _hook(session)
    job = seeds.queued(session, zoo)
    lease = runs.claim(session, "worker")
    assert lease is not None
    runs.record(session, lease, stage="localizing", message="half", progress=0.5)
    module = seeds.publish(session, zoo, lease)
    told = _told(session, hook)
    assert [row.type for row in told] == ["job.queued", "job.running", "job.succeeded"]
    last = json.loads(told[-1].body)
    assert last["type"] == "job.succeeded"
    assert last["data"] == {
        "job": job.id, "state": "succeeded", "seq": job.last_seq, "target": "low@1", "source": "high@1",
        "message": "cloned 7, 8", "module": module.id, "problem": None,
    }  # fmt: skip


def test_a_deployment_tells_what_is_wanted_and_what_became_of_it(zoo: Zoo, session: Session) -> None:
    module = seeds.module(session, zoo)
    hook = _hook(session)
    deployments.put(session, "digits", "low")
    for _ in range(2):  # two replicas say the same
        reports.observe(session, "digits", 1)
    deployments.attach(session, "digits", module.id)
    reports.refuse(session, "digits", 2, {"code": "bundle_damaged", "detail": "cut off"})
    deployments.delete(session, "digits")
    told = [(row.type.removeprefix("deployment."), json.loads(row.body)["data"]) for row in _told(session, hook)]
    assert [(kind, data["generation"]) for kind, data in told] == [
        ("changed", 1), ("served", 1), ("changed", 2), ("refused", 2), ("changed", 3), ("deleted", 3),
    ]  # fmt: skip
    assert told[2][1] == {
        "deployment": "digits",
        "generation": 2,
        "modules": [module.id],
        "target": "low@1",
        "canary": None,
    }
    assert told[3][1]["problem"]["code"] == "bundle_damaged"


def test_a_deployment_tells_of_its_canary(zoo: Zoo, session: Session) -> None:
    module = seeds.module(session, zoo)
    hook = _hook(session)
    deployments.put(session, "digits", "low")
    canaries.put(session, "digits", [module.id], share=0.25, mode="shadow")
    canaries.end(session, "digits")
    told = [json.loads(row.body)["data"]["canary"] for row in _told(session, hook)]
    assert (told[0], told[2]) == (None, None)
    assert (told[1]["mode"], told[1]["share"]) == ("shadow", 0.25)
    assert told[1]["id"].startswith("can_")


def test_a_change_that_is_rolled_back_tells_nothing(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        hook = _hook(session)
        job = seeds.queued(session, zoo)

    def fail(session: Session) -> None:
        jobs.cancel(session, job.id)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), zoo.database.write() as session:
        fail(session)
    with zoo.database.read() as session:
        assert [row.type for row in _told(session, hook)] == ["job.queued"]


def test_only_what_is_wanted_is_told_and_nothing_while_disabled(zoo: Zoo, session: Session) -> None:
    some, disabled = _hook(session, "job.cancelled", "job.failed"), _hook(session)
    webhooks.change(session, disabled.id, enabled=False)
    jobs.cancel(session, seeds.queued(session, zoo).id)
    assert [row.type for row in _told(session, some)] == ["job.cancelled"]
    assert _told(session, disabled) == []


def test_the_api_offers_the_events_that_there_are() -> None:
    assert Event.__args__ == webhooks.EVENTS  # type: ignore[attr-defined]


def test_a_message_stays_small_whatever_went_wrong(zoo: Zoo, session: Session) -> None:
    hook = _hook(session, "job.failed")
    seeds.queued(session, zoo)
    lease = runs.claim(session, "worker")
    assert lease is not None
    runs.fail(session, lease, {"code": "long", "detail": "ä" * 100_000})
    (row,) = _told(session, hook)
    assert len(row.body.encode()) < 4096
    assert json.loads(row.body)["data"]["problem"]["detail"].endswith("…")


def test_a_message_is_taken_once_and_a_webhook_gets_one_at_a_time(session: Session) -> None:
    first, second = _hook(session), _hook(session)
    rows = [outbox.post_test(session, first.id), outbox.post_test(session, first.id)]
    other = outbox.post_test(session, second.id)
    taken = [outbox.claim(session, "a"), outbox.claim(session, "b"), outbox.claim(session, "c")]
    assert [t and t[1].id for t in taken] == [rows[0].id, other.id, None]
    assert not outbox.is_due(session)
    assert taken[0] is not None
    outbox.settle(session, taken[0][0], GOOD, PATIENCE)
    following = outbox.claim(session, "c")
    assert following is not None
    assert following[1].id == rows[1].id


def test_a_letter_is_the_same_at_every_try(session: Session) -> None:
    row = outbox.post_test(session, _hook(session).id)
    first = outbox.claim(session, "a")
    assert first is not None
    outbox.settle(session, first[0], BAD, PATIENCE)
    assert outbox.claim(session, "a") is None
    _later(session, row)
    second = outbox.claim(session, "b")
    assert second is not None
    assert (first[1].id, first[1].body, first[1].secrets) == (second[1].id, second[1].body, second[1].secrets)
    outbox.settle(session, second[0], GOOD, PATIENCE)
    assert (row.state, row.tries, row.status, row.error) == ("delivered", 2, 204, None)


def test_a_sender_that_fell_silent_loses_its_message_and_its_word(session: Session) -> None:
    row = outbox.post_test(session, _hook(session).id)
    old = outbox.claim(session, "a")
    assert old is not None
    assert outbox.sweep(session) == 0
    row.lease_expires_at = clock.now(session) - timedelta(seconds=1)
    session.flush()
    assert outbox.sweep(session) == 1
    assert outbox.claim(session, "b") is not None
    with pytest.raises(LeaseLost):
        outbox.settle(session, old[0], GOOD, PATIENCE)
    assert row.state == "waiting"


@pytest.mark.parametrize(("tries", "seconds"), [(1, 5), (2, 15), (4, 135), (30, 6 * 3600), (500, 6 * 3600)])
def test_pauses_grow_threefold_up_to_six_hours(tries: int, seconds: float) -> None:
    pauses = [outbox.pause_after(tries, PATIENCE.first).total_seconds() for _ in range(200)]
    assert seconds * 0.8 <= min(pauses) < max(pauses) <= seconds * 1.2


def test_what_fails_for_days_is_given_up_and_its_webhook_disabled(session: Session) -> None:
    hook = _hook(session)
    row = outbox.post_test(session, hook.id)
    _fail(session)
    assert (row.state, hook.enabled, row.answer) == ("waiting", True, "oops")
    assert hook.failing_since is not None
    long_ago = clock.now(session) - PATIENCE.limit
    row.since = hook.failing_since = long_ago
    _later(session, row)
    _fail(session)
    assert (row.state, hook.enabled) == ("failed", False)
    assert hook.problem is not None
    assert hook.problem.endswith("expected 2xx, got 500")
    with pytest.raises(Conflict, match="enable it"):
        outbox.redeliver(session, hook.id, row.id)


def test_a_success_forgets_failures(session: Session) -> None:
    hook = _hook(session)
    row = outbox.post_test(session, hook.id)
    _fail(session)
    _later(session, row)
    _fail(session, GOOD)
    assert hook.failing_since is None
    assert hook.enabled


def test_a_receiver_that_is_gone_is_not_asked_again(session: Session) -> None:
    hook = _hook(session)
    row = outbox.post_test(session, hook.id)
    _fail(session, Reception(410, "", "expected 2xx, got 410"))
    assert (row.state, hook.enabled) == ("failed", False)


def test_what_waits_while_disabled_is_sent_when_enabled(session: Session) -> None:
    hook = _hook(session)
    row = outbox.post_test(session, hook.id)
    webhooks.change(session, hook.id, enabled=False)
    assert outbox.claim(session, "a") is None
    webhooks.change(session, hook.id, enabled=True)
    taken = outbox.claim(session, "a")
    assert taken is not None
    assert taken[1].id == row.id


def test_redelivering_sends_the_same_message_now(session: Session) -> None:
    hook, other = _hook(session), _hook(session)
    row = outbox.post_test(session, hook.id)
    _fail(session, GOOD)
    assert outbox.claim(session, "a") is None
    assert outbox.redeliver(session, hook.id, row.id).state == "waiting"
    taken = outbox.claim(session, "a")
    assert taken is not None
    assert taken[1].id == row.id
    with pytest.raises(NotFound, match="expected a delivery"):
        outbox.redeliver(session, other.id, row.id)


def test_both_secrets_sign_for_a_day(session: Session) -> None:
    hook, before = webhooks.create(session, url=URL)
    _, after = webhooks.rotate(session, hook.id)
    assert after != before
    assert webhooks.secrets_of(session, hook) == (after, before)
    hook.old_secret_until = clock.now(session) - timedelta(seconds=1)
    assert webhooks.secrets_of(session, hook) == (after,)


def test_deleting_takes_deliveries_along_and_fences_who_sends(session: Session) -> None:
    hook = _hook(session)
    outbox.post_test(session, hook.id)
    taken = outbox.claim(session, "a")
    assert taken is not None
    webhooks.delete(session, hook.id)
    assert session.scalars(select(DeliveryRow.id)).all() == []
    with pytest.raises(LeaseLost):
        outbox.settle(session, taken[0], GOOD, PATIENCE)
    with pytest.raises(NotFound, match="GET /v1/webhooks"):
        webhooks.get(session, hook.id)


def test_the_log_forgets_after_a_month(session: Session) -> None:
    hook = _hook(session)
    old, new = outbox.post_test(session, hook.id), outbox.post_test(session, hook.id)
    old.since = clock.now(session) - outbox.KEPT - timedelta(seconds=1)
    session.flush()
    outbox.forget_old(session)
    assert [row.id for row in _told(session, hook)] == [new.id]


def test_unknown_events_and_too_many_webhooks_are_refused(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Invalid, match=r"got 'job\.nothing'"):
        _hook(session, "job.nothing")
    monkeypatch.setattr(webhooks, "MOST", 1)
    hook = _hook(session)
    with pytest.raises(Invalid, match="expected some of"):
        webhooks.change(session, hook.id, events=["x"])
    with pytest.raises(Conflict, match="at most 1"):
        _hook(session)
