import hashlib
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.jobs import runs
from app.jobs.streams import watching
from app.models import validation
from app.zoo import Zoo
from pnc_client import ApiError, Client, DamagedDownload, Event, ServiceUnreachable, VersionRejected, deployments
from pnc_core.config import CloneConfig
from pnc_core.errors import ConfigError
from tests.unit import seeds
from tests.unit.client.breaking import Breaking
from tests.unit.inprocess import FakeServing


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A safetensors file."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(seeds.tensors())
    return path


def _validate(zoo: Zoo, fingerprint: str | None) -> None:
    with zoo.database.write() as session:
        lease = validation.claim_validation(session, "w")
        assert lease is not None
        if fingerprint is None:
            validation.reject_version(session, lease, {"code": "weights_mismatch", "detail": "layer fc is missing"})
        else:
            validation.accept_version(session, lease, fingerprint=fingerprint, parameters=1000, macs=5000)


def _ended_job(zoo: Zoo, steps: int = 10) -> str:
    with zoo.database.write() as session:
        job = seeds.queued(session, zoo)
        lease = runs.claim(session, "w")
        assert lease is not None
        for step in range(steps):
            runs.record(session, lease, stage="searching", message=f"step {step}", progress=step / steps)
        seeds.publish(session, zoo, lease)
        return job.id


def test_a_misspelt_architecture_is_refused_before_anything_is_sent(
    client: Client, line: Breaking, weights: Path
) -> None:
    spec = replace(seeds.network(), architecture="planes")
    with pytest.raises(ConfigError, match="got 'planes'; did you mean 'plain'") as caught:
        client.models.push("low", spec, weights)
    assert len(str(caught.value)) < 100
    assert [request.url.path for request in line.requests] == ["/v1/models/validate"]
    assert list(client.models.list()) == []


@pytest.mark.always
def test_everything_a_user_does(client: Client, zoo: Zoo, weights: Path, tmp_path: Path) -> None:
    for name, classes, fingerprint in (("low", seeds.LOW, f"{1:064x}"), ("high", seeds.HIGH, f"{2:064x}")):
        sent: dict[int, int] = {}
        version = client.models.push(name, seeds.network(classes), weights, progress=sent.__setitem__)
        assert sent == {weights.stat().st_size: weights.stat().st_size}
        assert version.status == "validating"
        _validate(zoo, fingerprint)
        assert client.models.wait(name, version.number).spec == seeds.network(classes)
    data = tmp_path / "Digits 0-9.parquet"
    data.write_bytes(seeds.parquet([label for label in range(10) for _ in range(10)]))
    dataset = client.datasets.push(data)
    assert (dataset.name, dataset.rows) == ("digits-0-9", 100)
    config = CloneConfig(classes=("7", "8"))
    assert client.jobs.validate("low", "high", dataset.id, config).valid
    job = client.jobs.create("low", "high", dataset.id, config)
    assert job.config == config
    with zoo.database.write() as session:
        lease = runs.claim(session, "w")
        assert lease is not None
        runs.record_trial(
            session,
            lease,
            stage="inserting",
            progress=0.5,
            target_position="a",
            source_position="b",
            round=0,
            score=1.0,
        )
        seeds.publish(session, zoo, lease)
    seen: list[Event] = []
    job = client.jobs.wait(job.id, on_event=seen.append)
    assert job.state == "succeeded"
    assert job.ended
    assert [e.type for e in seen] == ["state", "state", "trial", "state"]
    assert [t.score for t in client.jobs.trials(job.id)] == [1.0]
    assert job.module is not None
    assert client.modules.manifest(job.module)["classes"] == ["7", "8"]
    for bundle in client.modules.get(job.module).bundles:
        path = client.modules.download(job.module, bundle.payload, tmp_path / f"{bundle.payload}.safetensors")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == bundle.digest
    assert client.deployments.create("digits", "low").settled
    attached = client.deployments.attach("digits", job.module, if_match=1)
    assert attached.desired.modules == [job.module]
    prediction = client.deployments.predict("digits", b"\x89PNG image")
    assert (prediction.classes[0].name, prediction.classes[0].probability) == ("7", 0.75)
    assert client.deployments.detach("digits", job.module).desired.modules == []
    assert client.deployments.wait("digits").generation == 3
    client.deployments.delete("digits")
    assert list(client.deployments.list()) == []


def test_a_problem_becomes_an_error_with_its_fields(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.models.create("../etc")
    error = caught.value
    assert (error.status, error.code, error.errors[0].pointer) == (422, "invalid", "/name")
    assert error.request_id.startswith("req_")
    assert error.request_id in str(error)


def test_lists_go_on_over_pages(client: Client, line: Breaking) -> None:
    names = [f"m{i:03}" for i in range(120)]
    for name in names:
        client.models.create(name)
    before = len(line.requests)
    assert [m.name for m in client.models.list()] == names[::-1]
    assert len(line.requests) - before == 2


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_lost_request_is_sent_again_and_done_once(client: Client, line: Breaking, fault: str) -> None:
    line.plan.append(fault)
    assert client.models.create("a").name == "a"
    keys = [r.headers["idempotency-key"] for r in line.requests]
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert len(list(client.models.list())) == 1


def test_a_busy_service_is_waited_for_as_long_as_it_says(client: Client, line: Breaking) -> None:
    line.plan.extend([httpx.Response(503, headers={"Retry-After": "7"}), httpx.Response(429)])
    assert list(client.models.list()) == []
    assert line.pauses[0] == 7
    assert 0 < line.pauses[1] <= 10


def test_a_service_that_is_away_is_given_up(client: Client, line: Breaking) -> None:
    line.plan.extend(["before"] * 4)
    with pytest.raises(ServiceUnreachable, match="localhost:8000"):
        client.models.get("a")
    assert len(line.requests) == 4


def test_a_busy_service_is_given_up_with_its_own_words(client: Client, serving: FakeServing) -> None:
    serving.away = True
    with pytest.raises(ApiError) as caught:
        client.deployments.predict("digits", b"x")
    assert (caught.value.status, caught.value.code) == (503, "serving_unreachable")


def test_an_answer_that_is_no_problem_document_is_an_error_too(client: Client, line: Breaking) -> None:
    line.plan.append(httpx.Response(500, text="<h1>proxy</h1>"))
    with pytest.raises(ApiError, match="proxy"):
        client.models.get("a")


def test_an_upload_goes_on_where_it_broke(client: Client, line: Breaking, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(250)))
    line.plan.extend([httpx.Response(503), "none", "half"])  # announcing, again, sending
    upload = client.uploads.push(file)
    assert (upload.status, upload.digest) == ("complete", hashlib.sha256(file.read_bytes()).hexdigest())
    assert [r.url.params["offset"] for r in line.requests if r.method == "PUT"] == ["0", "100"]


def test_a_broken_stream_goes_on_after_the_last_event(client: Client, line: Breaking, zoo: Zoo) -> None:
    job_id = _ended_job(zoo)
    line.plan.extend(["cut", "before", "cut"])
    assert [e.seq for e in client.jobs.events(job_id)] == list(range(1, 14))
    asked = [r.headers["last-event-id"] for r in line.requests]
    assert asked == ["0", "3", "3", "6"]
    assert [e.seq for e in client.jobs.events(job_id, after=11)] == [12, 13]


def test_a_stream_that_never_comes_is_given_up(client: Client, line: Breaking) -> None:
    line.plan.extend(["before"] * 4)
    with pytest.raises(ServiceUnreachable):
        list(client.jobs.events("job_x"))


def test_a_stream_of_no_job_is_a_problem(client: Client) -> None:
    with pytest.raises(ApiError, match="not_found"):
        list(client.jobs.events("job_x"))


def test_waiting_for_a_job_ends_with_it(client: Client, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.02)
    with zoo.database.write() as session:
        job_id = seeds.queued(session, zoo).id

    def fail_later() -> None:
        time.sleep(0.2)
        with zoo.database.write() as session:
            lease = runs.claim(session, "w")
            assert lease is not None
            runs.fail(session, lease, {"code": "out_of_memory", "detail": "too large"})

    thread = threading.Thread(target=fail_later)
    thread.start()
    job = client.jobs.wait(job_id)
    thread.join()
    assert (job.state, (job.problem or {})["code"]) == ("failed", "out_of_memory")


def test_a_rejected_version_says_why(client: Client, zoo: Zoo, weights: Path) -> None:
    version = client.models.push("low", seeds.network(), weights)
    with pytest.raises(TimeoutError, match="is a worker running"):
        client.models.wait("low", version.number, timeout=0)
    _validate(zoo, None)
    with pytest.raises(VersionRejected, match="layer fc is missing"):
        client.models.wait("low", version.number)


def test_a_damaged_download_leaves_no_file(client: Client, line: Breaking, zoo: Zoo, tmp_path: Path) -> None:
    with zoo.database.write() as session:
        module = seeds.module(session, zoo)
    line.plan.extend(["none", httpx.Response(200, content=b"other bytes")])
    with pytest.raises(DamagedDownload, match="download it again"):
        client.modules.download(module.id, "full", tmp_path / "bundle")
    assert [p.name for p in tmp_path.iterdir()] == ["zoo"]
    with pytest.raises(ApiError, match="not_found"):
        client.modules.download("mod_x", "full", tmp_path / "bundle")


def test_a_download_that_ends_inside_another_does_it_no_harm(client: Client, zoo: Zoo, tmp_path: Path) -> None:
    with zoo.database.write() as session:
        module, path = seeds.module(session, zoo).id, tmp_path / "bundle"
    inner: list[bytes] = []

    def again(_: int, __: int) -> None:
        if not inner:
            inner.append(b"")
            inner.append(client.modules.download(module, "full", path).read_bytes())

    client.modules.download(module, "full", path, progress=again)
    assert path.read_bytes() == inner[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "zoo"]


def test_many_files_go_in_requests_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployments, "BATCH", 3)
    monkeypatch.setattr(deployments, "BATCH_BYTES", 100)
    sizes = [10, 10, 10, 10, 90, 20, 500, 1]
    files = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(bytes(size))
    batches = [[size.stat().st_size for size in batch] for batch in deployments._batches(files)]
    assert batches == [[10, 10, 10], [10, 90], [20], [500], [1]]
