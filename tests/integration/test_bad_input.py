"""Bad input is refused with a clear problem document and changes nothing."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from app.datasets import service as datasets
from app.datasets.service import Contents
from app.demo import DIGITS, Material, png
from app.settings import Settings
from app.zoo import open_zoo
from pnc_client import ApiError, Client, Dataset, VersionRejected
from pnc_client.parquet import write_parquet
from pnc_client.sources import SourceError
from pnc_core import CloneConfig, NetworkSpec
from pnc_core.errors import TensorFileError
from tests.integration.conftest import Up
from tests.unit import seeds
from tests.unit.datasets import parquets

CONFIG = CloneConfig(classes=("7", "8"))


@pytest.fixture
def counts(client: Client) -> Callable[[], dict[str, int]]:
    """Number of rows of every kind."""

    def _counts() -> dict[str, int]:
        return {
            "datasets": len(list(client.datasets.list())),
            "jobs": len(list(client.jobs.list())),
            "modules": len(list(client.modules.list())),
            "deployments": len(list(client.deployments.list())),
        }

    return _counts


def is_clear(error: ApiError) -> bool:
    return "expected" in error.detail and "got" in error.detail and bool(error.code)


def test_weights_of_another_architecture_are_rejected(
    client: Client, material: Material, dataset: Dataset, files: Path
) -> None:
    spec = NetworkSpec(**{**vars(material.target[1]), "options": {"width": 16}})
    pushed = client.models.push("too-narrow", spec, files / "digits-low.safetensors")
    with pytest.raises(VersionRejected, match=r"expected .* got .*check architecture") as rejected:
        client.models.wait("too-narrow", pushed.number)
    assert "weights_mismatch" in str(vars(rejected.value)) or "weights" in str(rejected.value)
    version = client.models.version("too-narrow", pushed.number)
    assert version.status == "rejected"
    assert version.problem is not None
    assert version.problem["code"] == "weights_mismatch"
    with pytest.raises(ApiError) as refused:
        client.deployments.create("narrow", "too-narrow@1")
    assert refused.value.status == 422
    assert "weights" in refused.value.detail


def test_missing_classes_are_refused(service: Up, dataset: Dataset) -> None:
    spec = {"architecture": "cnn", "input_size": [1, 8, 8], "mean": [0.3], "std": [0.4]}
    answer = httpx.post(f"{service.url}/v1/models/digits-low/versions", json={"upload": "up_1", "spec": spec})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert [e["pointer"] for e in problem["errors"]] == ["/spec/classes"]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda raw: raw[: len(raw) // 2],
    "stub": lambda raw: raw[:4],
    "renamed zip": lambda raw: b"PK\x03\x04" + raw,
    "noise": lambda raw: b"\xff" * 64,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_safetensors_are_refused(
    client: Client, material: Material, dataset: Dataset, files: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(damage((files / "digits-low.safetensors").read_bytes()))
    before = client.models.get("digits-low").last_version
    with pytest.raises(TensorFileError):  # the client looks first
        client.models.push("digits-low", material.target[1], path)
    body = {"upload": client.uploads.push(path).id, "spec": asdict(material.target[1])}
    answer = httpx.post(f"{client.url}/v1/models/digits-low/versions", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid")
    assert problem["errors"][0]["code"] == "invalid_safetensors"
    assert "expected" in problem["detail"]
    assert "got" in problem["detail"]
    assert client.models.get("digits-low").last_version == before


def test_numbers_that_are_none_are_rejected(client: Client, material: Material, tmp_path: Path) -> None:
    network, spec = material.target
    state = {n: t.clone() for n, t in network.state_dict().items()}
    state["fc.weight"][0, 0] = torch.nan
    safetensors.torch.save_file(state, tmp_path / "nan.safetensors")
    pushed = client.models.push("not-a-number", spec, tmp_path / "nan.safetensors")
    with pytest.raises(VersionRejected, match="finite"):
        client.models.wait("not-a-number", pushed.number)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"classes": ("7", "zebra")}, "/config/classes"),
        ({"classes": ("7", "0")}, "/config/classes"),
    ],
    ids=["unknown class", "class the target has"],
)
def test_jobs_that_make_no_sense_are_refused(
    client: Client, dataset: Dataset, counts: Callable[[], dict[str, int]], change: dict[str, Any], pointer: str
) -> None:
    before = counts()
    config = CloneConfig(**{**vars(CONFIG), **change})
    with pytest.raises(ApiError) as refused:
        client.jobs.create("digits-low", "digits-high", dataset.id, config)
    assert refused.value.status == 422
    assert is_clear(refused.value)
    assert any(e.pointer.startswith(pointer) for e in refused.value.errors)
    verdict = client.jobs.validate("digits-low", "digits-high", dataset.id, config)
    assert not verdict.valid
    assert verdict.problems
    assert counts() == before


def test_a_parameter_out_of_range_names_range_and_value(service: Up, dataset: Dataset) -> None:
    body = {
        "target": "digits-low",
        "source": "digits-high",
        "dataset": dataset.id,
        "config": {"classes": ["7"], "keep": 7},
    }
    answer = httpx.post(f"{service.url}/v1/cloning-jobs", json=body)
    assert answer.status_code == 422
    assert "keep: expected a share above 0 and at most 1, got 7" in answer.text


def test_a_position_that_does_not_exist_fails_the_job_with_the_ones_that_do(client: Client, dataset: Dataset) -> None:
    from pnc_core import Position

    config = CloneConfig(classes=("7",), position=Position(target="nowhere", source="blocks.1"))
    job = client.jobs.wait(client.jobs.create("digits-low", "digits-high", dataset.id, config).id)
    assert job.state == "failed"
    assert job.problem is not None
    assert job.problem["code"] == "invalid_position"
    assert "blocks.1" in job.problem["detail"]
    assert "nowhere" in job.problem["detail"]


def test_parquet_without_the_columns_is_refused(
    client: Client, counts: Callable[[], dict[str, int]], tmp_path: Path
) -> None:
    before = counts()
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"picture": [1], "name": ["cat"]}), path)
    with pytest.raises(SourceError, match="expected bytes of image files in column 'picture', got int64"):
        client.datasets.push(path)
    body = {"name": "table", "upload": client.uploads.push(path).id}
    with pytest.raises(ApiError) as refused:
        client.datasets._http.post(Dataset, "/v1/datasets", body)
    assert refused.value.status == 422
    assert is_clear(refused.value)
    assert "image" in refused.value.detail
    assert "picture" in refused.value.detail
    assert counts() == before


def test_a_row_that_is_no_image_costs_the_job_only_this_row(client: Client, material: Material, tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    images, labels = material.job.images, material.job.labels.tolist()
    rows = [(DIGITS[label], png(image)) for image, label in zip(images, labels, strict=True)]
    place = labels.index(7)
    rows[place] = ("7", b"not an image")
    write_parquet(path, rows, DIGITS)
    broken = client.datasets.wait(client.datasets.push(path).id)
    assert broken.findings is not None
    assert [one.row for one in broken.findings.first_unreadable] == [place]
    assert broken.counts["7"] == labels.count(7) - 1
    config = CloneConfig(classes=("7", "8"), preset="fast")
    job = client.jobs.wait(client.jobs.create("digits-low", "digits-high", broken.id, config).id)
    assert job.state == "succeeded"
    (event,) = (event for event in client.jobs.events(job.id) if "left_out" in event.data)
    assert event.data == {"left_out": 1}
    assert f"images cannot be decoded and are left out; row {place}: expected an image" in event.message


def test_parquet_that_cannot_be_read_is_refused_with_row_group_and_column(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(parquets.broken_page("image.bytes", DIGITS))
    with pytest.raises(ApiError) as refused:
        client.datasets.push(path)
    assert (refused.value.status, refused.value.errors[0].code) == (422, "invalid_parquet")
    assert "row group 1 of 3, column image.bytes" in refused.value.detail


def test_a_dataset_that_nobody_can_read_ends_its_job_once(service: Up, client: Client, dataset: Dataset) -> None:
    """A dataset as registered before whole files were checked at registration."""
    content = parquets.broken_page("image.bytes", DIGITS)
    zoo = open_zoo(Settings(data_dir=service.data_dir))
    with zoo.database.write() as session:
        upload = seeds.upload(session, zoo, content)
        contents = Contents(90, DIGITS, dict.fromkeys(DIGITS, 9))
        broken = datasets.register(session, name="broken", upload_id=upload.id, contents=contents).id
    zoo.close()
    job = client.jobs.wait(client.jobs.create("digits-low", "digits-high", broken, CONFIG).id)
    assert (job.state, job.attempts) == ("failed", 0)
    assert job.problem is not None
    assert job.problem["code"] == "invalid_data"
    for part in (broken, "row group 1 of 3", "column image.bytes"):
        assert part in job.problem["detail"]
    states = [e.state for e in client.jobs.events(job.id) if e.type == "state"]
    assert states == ["queued", "running", "failed"]


def test_a_prediction_of_something_that_is_no_image_is_refused(
    client: Client, material: Material, dataset: Dataset
) -> None:
    client.deployments.create("eyes", "digits-low")
    before = client.deployments.predict("eyes", png(material.test.images[0]))
    for raw in (b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 20, png(material.test.images[0])[:-30]):
        with pytest.raises(ApiError) as refused:
            client.deployments.predict("eyes", raw)
        assert refused.value.status == 422
        assert refused.value.code == "invalid_data"
        assert is_clear(refused.value)
    assert client.deployments.predict("eyes", png(material.test.images[0])) == before
    client.deployments.delete("eyes")


def test_a_huge_image_is_refused_before_it_is_decoded(client: Client, dataset: Dataset) -> None:
    from PIL import Image

    client.deployments.create("small-eyes", "digits-low")
    buffer = io.BytesIO()
    Image.new("L", (9000, 9000)).save(buffer, "PNG")
    with pytest.raises(ApiError) as refused:
        client.deployments.predict("small-eyes", buffer.getvalue())
    assert refused.value.status == 422
    assert "pixels" in refused.value.detail
    client.deployments.delete("small-eyes")


def test_every_error_is_a_problem_document(service: Up) -> None:
    calls = [("GET", "/nowhere"), ("DELETE", "/v1/models"), ("GET", "/v1/modules/mod_0"), ("POST", "/v1/cloning-jobs")]
    for method, path in calls:
        answer = httpx.request(method, service.url + path, content=b"{" if method == "POST" else None)
        assert answer.is_client_error
        assert answer.headers["content-type"] == "application/problem+json"
        problem = json.loads(answer.text)
        assert {"type", "title", "status", "detail", "code", "request_id"} <= problem.keys()
        assert problem["status"] == answer.status_code
