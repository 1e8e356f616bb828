"""Real job processes: they continue a trace, and a process without memory ends with that reason."""

import io
import threading
from pathlib import Path

import httpx
import pytest
import safetensors.torch
import torch

from app.datasets import service as datasets
from app.db.pages import Window
from app.demo import DIGITS, handwritten, png_rows
from app.jobs import attempts, runs
from app.jobs import service as jobs
from app.jobs.service import JobRequest
from app.main import create_app
from app.models import service as models
from app.process import tracing
from app.settings import Settings
from app.zoo import Zoo
from pnc_client.parquet import write_parquet
from pnc_core.config import CloneConfig
from pnc_core.identity import fingerprint
from tests.integration.collector import collecting
from tests.unit import seeds
from tests.unit.inprocess import InProcess
from tests.unit.pnc_core import nets
from workers.supervisor import JOB, Supervisor

CONFIG = CloneConfig(classes=("5", "6"), epochs=2, shortlist=2, views=1, screen_images=100, batch_size=64)
ALONE = {"threads": 1, "worker_device": "cpu"}


def lay(zoo: Zoo, directory: Path, size: int) -> str:
    """Register two networks for images of this height and width, and digits; returns the dataset's id."""
    digits = handwritten().sample(300, torch.Generator().manual_seed(0))
    write_parquet(directory / "digits.parquet", png_rows(digits), DIGITS)
    content = (directory / "digits.parquet").read_bytes()
    with zoo.database.write() as session:
        for seed, (name, classes) in enumerate((("low", "01234"), ("high", "56789"))):
            torch.manual_seed(seed)
            spec = nets.spec("cnn", size, 1, classes, width=8)
            network = nets.randomised(nets.build_network(spec), seed).eval()
            models.create(session, name=name)
            upload = seeds.upload(session, zoo, safetensors.torch.save(network.state_dict()))
            version = models.add_version(session, name, upload_id=upload.id, spec=spec)
            seeds.accept(session, version, fingerprint(network))
        upload = seeds.upload(session, zoo, content)
        contents = datasets.inspect(io.BytesIO(content))
        return datasets.register(session, name="digits", upload_id=upload.id, contents=contents).id


def see_one_through(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        lease = runs.claim(session, "worker")
    assert lease is not None
    Supervisor(zoo, threading.Event()).run_row(JOB, lease)


def test_one_trace_goes_from_the_request_to_the_pieces_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds.lay_database(tmp_path)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        app = create_app(Settings(data_dir=tmp_path, pages=False, **ALONE))
        zoo = app.state.zoo
        body = {"target": "low", "source": "high", "dataset": lay(zoo, tmp_path, 8), "config": vars(CONFIG)} | {
            "anyway": True
        }
        with InProcess(app) as transport, httpx.Client(base_url="http://localhost", transport=transport) as http:
            job_id = http.post("/v1/cloning-jobs", json=body).raise_for_status().json()["id"]
        see_one_through(zoo)
        tracing.end()
        with zoo.database.read() as session:
            job = jobs.get(session, job_id)
        zoo.close()
    assert job.state == "succeeded", job.problem
    assert job.traceparent is not None
    here, child = "pnc-api: POST /v1/cloning-jobs", "pnc-runner: POST /v1/cloning-jobs > attempt > job"
    pieces = {"loading", "search", "search > screening", "search > trials", "search > trials > localization"}
    pieces |= {"insertion", "insertion > adapter", "insertion > localization", "heads", "judging", "publish"}
    wanted = {here, f"{here} > attempt", child, *(f"{child} > {piece}" for piece in pieces)}
    assert collector.paths() >= wanted


def test_a_job_that_does_not_fit_into_memory_is_tried_twice_and_says_what_to_do(tmp_path: Path) -> None:
    zoo = seeds.new_zoo(tmp_path, job_memory_bytes=2**29, **ALONE)
    dataset = lay(zoo, tmp_path, 256)
    with zoo.database.write() as session:  # one layer's output of one batch: 300 * 8 * 256 * 256 * 4 bytes
        config = CloneConfig(classes=("5",), batch_size=300)
        job_id = jobs.submit(
            session, JobRequest(target="low", source="high", dataset=dataset, config=config, anyway=True)
        ).id
    for _ in range(2):
        see_one_through(zoo)
    with zoo.database.write() as session:
        job = jobs.get(session, job_id)
        ended = attempts.list_attempts(session, job_id, Window(10, None)).data
        assert runs.claim(session, "worker") is None
    zoo.close()
    assert [(row.outcome, row.reason) for row in ended] == [("out_of_memory", "its process ran out of memory")] * 2
    assert (job.state, job.size) == ("failed", "large")
    assert job.problem is not None
    assert job.problem["code"] == "out_of_memory"
    assert "smaller batch_size" in job.problem["detail"]
