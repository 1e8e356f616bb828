"""Workers check versions on images, and refuse jobs of networks that guess."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.db.leases import Lease
from app.demo import png_rows
from app.jobs import runs
from app.jobs import service as jobs
from app.jobs.service import JobRequest
from app.models import checks, validation
from app.models import service as models
from app.models.tables import VersionRow
from app.zoo import Zoo
from pnc_client.parquet import write_parquet
from pnc_client.schemas.models import Version
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.errors import NearChance
from pnc_core.graph.architectures import build_network
from pnc_core.images import ImageSet
from tests.unit import seeds
from workers.networks.checking import refuse_guessing
from workers.runner import check_version, run_check, run_job

CLASSES = ("a", "b", "c", "d")
SPEC = NetworkSpec(
    architecture="cnn", classes=CLASSES, input_size=(1, 8, 8), mean=(0.0,), std=(1.0,), options={"width": 4}
)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    labels = torch.arange(200) % len(CLASSES)
    pixels = torch.randint(0, 256, (200, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return ImageSet(pixels.to(torch.uint8), labels, CLASSES)


@pytest.fixture(scope="module")
def parquet(images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "letters.parquet"
    write_parquet(path, png_rows(images), images.classes)
    return path


def constant(answer: int | None = 0, spec: NetworkSpec = SPEC) -> dict[str, torch.Tensor]:
    """Weights of a network that always gives the same class."""
    state = {name: torch.zeros_like(t) for name, t in build_network(spec).state_dict().items()}
    if answer is not None:
        state["fc.bias"][answer] = 1.0
    return state


def push(session: Session, zoo: Zoo, name: str, spec: NetworkSpec = SPEC) -> VersionRow:
    models.create(session, name=name)
    upload = seeds.upload(session, zoo, safetensors.torch.save(constant(spec=spec)))
    return models.add_version(session, name, upload_id=upload.id, spec=spec)


def register(session: Session, zoo: Zoo, parquet: Path) -> DatasetRow:
    with parquet.open("rb") as file:
        up = seeds.upload(session, zoo, parquet.read_bytes())
        return datasets.register(session, name="letters", upload_id=up.id, contents=datasets.inspect(file))


def accepted(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        lease = validation.claim_validation(session, "worker")
    assert lease is not None
    check_version(zoo, lease)


def claimed(zoo: Zoo) -> Lease | None:
    with zoo.database.write() as session:
        return checks.claim(session, "worker")


def read(zoo: Zoo, id: str) -> Version:
    with zoo.database.read() as session:
        return Version.model_validate(session.get_one(VersionRow, id))


@pytest.mark.parametrize("images_first", [True, False])
def test_a_version_is_checked_once_it_and_its_images_are_there(zoo: Zoo, parquet: Path, images_first: bool) -> None:
    with zoo.database.write() as session:
        if images_first:
            register(session, zoo, parquet)
        version = push(session, zoo, "letters")
    assert claimed(zoo) is None
    accepted(zoo)
    if not images_first:
        assert claimed(zoo) is None
        with zoo.database.write() as session:
            register(session, zoo, parquet)
    assert read(zoo, version.id).checking is not None
    lease = claimed(zoo)
    assert lease is not None
    assert claimed(zoo) is None
    run_check(zoo, lease)
    found = read(zoo, version.id)
    assert (found.status, found.checking) == ("ready", None)
    assert found.check is not None
    assert (found.check.outcome, found.check.accuracy, found.check.images) == ("near_chance", 0.25, 200)
    assert "the network guesses" in found.check.detail
    assert (found.accuracy, found.accuracy_images, found.accuracy_dataset) == (0.25, 200, found.check.dataset)
    assert claimed(zoo) is None


def test_a_dataset_without_a_class_asks_for_nothing(zoo: Zoo, parquet: Path) -> None:
    other = NetworkSpec(**{**vars(SPEC), "classes": ("a", "b", "c", "x")})
    with zoo.database.write() as session:
        register(session, zoo, parquet)
        push(session, zoo, "letters", other)
    accepted(zoo)
    assert claimed(zoo) is None


def test_images_that_cannot_be_read_end_the_check_with_the_reason(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        version = push(session, zoo, "digits", NetworkSpec(**{**vars(SPEC), "classes": ("0", "1", "2", "3")}))
        seeds.dataset(session, zoo, images=20)
    accepted(zoo)
    lease = claimed(zoo)
    assert lease is not None
    run_check(zoo, lease)
    found = read(zoo, version.id).check
    assert found is not None
    assert found.outcome == "failed"
    assert "expected images, got none: 80 of 80 images" in found.detail


def test_a_check_whose_process_dies_is_not_repeated(zoo: Zoo, parquet: Path) -> None:
    with zoo.database.write() as session:
        register(session, zoo, parquet)
        version = push(session, zoo, "letters")
    accepted(zoo)
    lease = claimed(zoo)
    assert lease is not None
    with zoo.database.write() as session:
        checks.crashed(session, lease, "its process ran out of memory")
    found = read(zoo, version.id)
    assert (found.status, found.checking) == ("ready", None)
    assert found.check is not None
    assert found.check.outcome == "failed"
    assert claimed(zoo) is None


def test_a_silent_worker_s_check_goes_to_another_until_too_many_fell_silent(zoo: Zoo, parquet: Path) -> None:
    with zoo.database.write() as session:
        register(session, zoo, parquet)
        version = push(session, zoo, "letters")
    accepted(zoo)
    for left in (True, False):
        assert claimed(zoo) is not None
        with zoo.database.write() as session:
            seeds.expire(session, session.get_one(VersionRow, version.id))
            validation.sweep_validations(session, 2)
        assert (read(zoo, version.id).checking is not None) is left
    found = read(zoo, version.id)
    assert found.status == "ready"
    assert found.check is not None
    assert found.check.outcome == "failed"


def test_a_job_with_a_network_that_guesses_is_refused(zoo: Zoo, images: ImageSet) -> None:
    with zoo.database.write() as session:
        version = push(session, zoo, "letters")
        network = build_network(SPEC)
        network.load_state_dict(constant())
        with pytest.raises(NearChance, match=r"letters@1: expected a network .* 25.0 % .* of 200 images.*anyway"):
            refuse_guessing(version, (network, SPEC), images, "ds_1")
        refuse_guessing(version, (network, SPEC), images.take(torch.arange(60)), "ds_1")  # too few for a verdict
        refuse_guessing(version, (network, SPEC), ImageSet(images.images, images.labels, tuple("wxyz")), "ds_1")


@pytest.mark.parametrize(("anyway", "state"), [(False, "failed"), (True, "running")])
def test_a_job_of_networks_that_guess_ends_with_the_reason_unless_it_is_to_run_anyway(
    zoo: Zoo, parquet: Path, anyway: bool, state: str
) -> None:
    with zoo.database.write() as session:
        dataset = register(session, zoo, parquet)
        for name, classes in (("left", CLASSES[:3]), ("right", CLASSES)):
            push(session, zoo, name, replace(SPEC, classes=classes))
    for _ in range(2):
        accepted(zoo)
    with zoo.database.write() as session:
        wanted = CloneConfig(classes=CLASSES[3:])
        request = JobRequest(target="left", source="right", dataset=dataset.id, config=wanted, anyway=anyway)
        job = jobs.submit(session, request)
        lease = runs.claim(session, "worker")
    assert lease is not None
    run_job(zoo, lease, lambda: True)  # stopped as soon as cloning begins
    with zoo.database.read() as session:
        found = jobs.get(session, job.id)
        assert found.state == state
        assert anyway or found.problem["code"] == "near_chance"
