from dataclasses import replace

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.datasets.tables import DatasetRow
from app.db.ids import new_id
from app.errors import Invalid, InvalidTransition, LeaseLost, NotFound
from app.jobs import recovery, rules, runs, states
from app.jobs import service as jobs
from app.jobs.tables import EventRow, JobRow
from app.models import service as models
from app.models import validation
from app.modules.tables import BundleRow, ModuleRow
from app.zoo import Zoo
from pnc_core.config import MIN_IMAGES, CloneConfig
from tests.unit import seeds


def _codes(session: Session, request: jobs.JobRequest) -> list[tuple[str, str]]:
    problems, *_ = jobs.validate(session, request)
    with pytest.raises(Invalid) as caught:
        jobs.submit(session, request)
    assert caught.value.problems == problems
    assert session.scalar(select(func.count(JobRow.id))) == 0
    return [(p.pointer, p.code) for p in problems]


def test_a_sensible_job_is_queued_with_its_parameters(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    request = replace(request, config=replace(request.config, keep=0.25, seed=3))
    job = jobs.submit(session, request)
    session.expire(job)
    assert job.state == "queued"
    assert jobs.config_of(job) == request.config
    assert jobs.get(session, job.id) is job


def test_the_estimate_counts_images_and_work(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    problems, estimate, _ = jobs.validate(session, request)
    assert problems == []
    assert estimate is not None
    assert (estimate.old_images, estimate.new_images, estimate.module_parameters) == (50, 20, 1000)
    bounded = replace(request, config=replace(request.config, max_size=0.6))
    assert (found := jobs.validate(session, bounded)[1]) is not None
    assert found.module_parameters == 600
    _, longer, _ = jobs.validate(session, replace(request, config=replace(request.config, epochs=100)))
    assert longer is not None
    assert longer.macs is not None
    assert estimate.macs is not None
    assert longer.macs > estimate.macs > 70 * 10_000


def test_classes_must_be_the_sources_and_not_the_targets(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    wrong = replace(request, config=CloneConfig(classes=("cat", "1")))
    assert _codes(session, wrong) == [
        ("/config/classes", "unknown_class"),
        ("/config/classes", "unknown_class"),
        ("/config/classes", "class_in_target"),
    ]


def test_every_reference_that_leads_nowhere_is_named(zoo: Zoo, session: Session) -> None:
    request = jobs.JobRequest(target="a", source="b@1", dataset="ds_x", config=CloneConfig(classes=("7",)))
    assert _codes(session, request) == [("/target", "not_found"), ("/source", "not_found"), ("/dataset", "not_found")]


def test_images_of_new_and_old_classes_are_needed(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    request = replace(request, config=replace(request.config, max_size=0.6))
    few = seeds.dataset(session, zoo, images=MIN_IMAGES)
    assert jobs.validate(session, replace(request, dataset=few.id))[0] == []
    few.counts |= {"7": MIN_IMAGES - 1, "8": 0}
    assert _codes(session, replace(request, dataset=few.id)) == [("/dataset", "too_few_images")] * 2
    few.counts = {str(digit): 100 for digit in range(10)} | {"0": MIN_IMAGES - 1}
    few.counts.pop("1")
    assert _codes(session, replace(request, dataset=few.id)) == [("/dataset", "too_few_old_images")]
    (problem,), *_ = jobs.validate(session, replace(request, dataset=few.id))
    assert f"at least {MIN_IMAGES} images of each of the target's 5 classes" in problem.detail
    assert "got fewer of 0, 1;" in problem.detail


def test_one_image_of_a_class_is_enough_where_the_whole_source_may_be_taken(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    few = seeds.dataset(session, zoo, images=1)
    assert jobs.validate(session, replace(request, dataset=few.id))[0] == []
    few.counts |= {"7": 0}
    assert _codes(session, replace(request, dataset=few.id)) == [("/dataset", "too_few_images")]


def test_images_without_labels_are_for_jobs_that_read_none(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    data = session.get_one(DatasetRow, request.dataset)
    data.classes, data.counts = [], {}
    assert _codes(session, request) == [("/dataset", "no_labels")]
    unread = replace(request, config=replace(request.config, labels=False))
    problems, estimate, _ = jobs.validate(session, unread)
    assert problems == []
    assert estimate is not None
    assert (estimate.macs or 0) > 0
    classes = len(seeds.LOW) + len(request.config.classes)
    data.rows = MIN_IMAGES * classes - 1
    assert _codes(session, unread) == [("/dataset", "too_few_images")]
    alone = replace(unread, config=replace(unread.config, old_images=False))
    assert jobs.validate(session, alone)[0] == []


def test_a_version_cannot_be_cloned_into_itself(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    assert ("/source", "same_version") in _codes(session, replace(request, source="low"))


def test_a_rejected_version_brings_its_reasons(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    seeds.version(session, zoo, "broken", seeds.HIGH, status="rejected")
    problems, *_ = jobs.validate(session, replace(request, source="broken"))
    assert [p.code for p in problems] == ["version_rejected"]
    assert "no such layer" in problems[0].detail


def test_an_archived_model_takes_no_jobs(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    models.change(session, "high", archived=True)
    assert _codes(session, request) == [("/source", "model_archived")]


def test_a_job_waits_for_its_versions(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    late = seeds.version(session, zoo, "late", seeds.HIGH, status="validating")
    job = jobs.submit(session, replace(request, source="late"))
    assert job.state == "validating"
    assert runs.claim(session, "a") is None
    seeds.accept(session, late, "f" * 64)
    lease = runs.claim(session, "a")
    assert lease is not None
    assert lease.id == job.id


def test_a_row_that_cannot_be_understood_fails_and_stops_no_other(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    late = seeds.version(session, zoo, "late", seeds.HIGH, status="validating")
    odd, good = (jobs.submit(session, replace(request, source="late")) for _ in range(2))
    odd.config = {**odd.config, "views": -1}
    seeds.accept(session, late, "f" * 64)
    lease = runs.claim(session, "a")
    assert lease is not None
    assert lease.id == good.id
    assert odd.state == "failed"
    assert odd.problem is not None
    assert odd.problem["code"] == "invalid_config"
    assert "views: expected an integer from 1 to 100, got -1" in odd.problem["detail"]


def test_a_job_fails_when_its_version_is_rejected(zoo: Zoo, session: Session) -> None:
    request = seeds.request(session, zoo)
    seeds.version(session, zoo, "late", seeds.HIGH, status="validating")
    job = jobs.submit(session, replace(request, source="late"))
    lease = validation.claim_validation(session, "a")
    assert lease is not None
    validation.reject_version(session, lease, {"code": "weights_mismatch", "detail": "layer fc is missing"})
    recovery.sweep(session)
    assert job.state == "failed"
    assert job.problem is not None
    assert "layer fc is missing" in job.problem["detail"]


def test_cancelling_a_waiting_job_ends_it_at_once(zoo: Zoo, session: Session) -> None:
    job = jobs.cancel(session, seeds.queued(session, zoo).id)
    assert job.state == "cancelled"
    assert job.finished_at is not None
    assert jobs.cancel(session, job.id).state == "cancelled"
    assert job.last_seq == 2
    assert runs.claim(session, "a") is None


def test_cancelling_a_running_job_tells_its_worker(zoo: Zoo, session: Session) -> None:
    job = seeds.queued(session, zoo)
    lease = runs.claim(session, "a")
    assert lease is not None
    assert jobs.cancel(session, job.id).state == "cancelling"
    assert runs.heartbeat(session, lease) == "cancel"
    with pytest.raises(InvalidTransition):
        seeds.publish(session, zoo, lease)
    runs.finish_cancel(session, lease)
    assert job.state == "cancelled"
    assert session.scalar(select(func.count(ModuleRow.id))) == 0


def test_an_ended_job_cannot_be_cancelled(zoo: Zoo, session: Session) -> None:
    job = seeds.queued(session, zoo)
    lease = runs.claim(session, "a")
    assert lease is not None
    runs.fail(session, lease, {"code": "out_of_memory", "detail": "too large"})
    with pytest.raises(InvalidTransition, match="the job has ended"):
        jobs.cancel(session, job.id)


def test_success_is_one_transaction_with_everything(zoo: Zoo, session: Session) -> None:
    job = seeds.queued(session, zoo)
    lease = runs.claim(session, "a")
    assert lease is not None
    module = seeds.publish(session, zoo, lease)
    session.refresh(job)
    assert (job.state, job.progress, job.module) == ("succeeded", 1.0, module)
    assert [b.payload for b in module.bundles] == ["thin", "full"]
    assert all(zoo.store.size(b.key) == b.bytes for b in module.bundles)
    last = session.scalars(select(EventRow).order_by(EventRow.seq.desc()).limit(1)).one()
    assert (last.state, last.data) == ("succeeded", {"module": module.id})


def test_a_job_publishes_once(zoo: Zoo, session: Session) -> None:
    seeds.queued(session, zoo)
    lease = runs.claim(session, "a")
    assert lease is not None
    first = seeds.publish(session, zoo, lease)
    with pytest.raises(LeaseLost):
        seeds.publish(session, zoo, lease)
    session.add(
        ModuleRow(
            id=new_id("mod"),
            job_id=first.job_id,
            target_version_id=first.target_version_id,
            source_version_id=first.source_version_id,
            target_fingerprint="f",
            classes=[],
            manifest={},
        )
    )
    with pytest.raises(IntegrityError):
        session.flush()
    session.rollback()


def test_half_a_success_leaves_nothing(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        job = seeds.queued(session, zoo)
        lease = runs.claim(session, "a")
    assert lease is not None
    manifest = {"classes": ["7"], "target_fingerprint": "f"}
    with pytest.raises(ValueError, match="hexadecimal"), zoo.database.write() as session:
        runs.succeed(session, lease, manifest=manifest, bundles=[("full", "../../etc/passwd", 1)])
    with zoo.database.read() as session:
        assert jobs.get(session, job.id).state == "running"
        assert session.scalar(select(func.count(ModuleRow.id))) == 0
        assert session.scalar(select(func.count(BundleRow.module_id))) == 0


@pytest.mark.parametrize("state", states.TRANSITIONS)
def test_every_state_is_one_the_table_allows(state: str) -> None:
    assert state in {s for following in states.TRANSITIONS.values() for s in following} | {"validating"}


def test_an_unknown_job_is_not_found(session: Session) -> None:
    with pytest.raises(NotFound, match="job_none"):
        jobs.get(session, "job_none")


def test_an_owner_says_which_classes_may_be_cloned(session: Session, zoo: Zoo) -> None:
    request = seeds.request(session, zoo, ("7", "8"))
    for allowed, refused in ((["7"], ["8"]), ([], ["7", "8"])):
        models.change(session, "high", clonable=allowed)
        with pytest.raises(Invalid) as error:
            jobs.submit(session, request)
        assert [p.code for p in error.value.problems] == ["not_clonable"] * len(refused)
        assert all(name in str(error.value) for name in refused)
    for allowed in (["7", "8"], "all"):
        models.change(session, "high", clonable=allowed)
        job = jobs.submit(session, request)
    models.change(session, "high", clonable=["7"])
    with pytest.raises(Invalid, match="ask the owner"):
        rules.check_clonable(job.source_version, request.config)
