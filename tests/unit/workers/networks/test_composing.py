"""A worker fits a composition on a dataset's images, and ends its row whatever happens."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from app.compositions import runs
from app.compositions import service as compositions
from app.compositions.tables import CompositionRow
from app.datasets import service as datasets
from app.db.leases import Lease
from app.demo import png_rows
from app.errors import LeaseLost
from pnc_client.parquet import write_parquet
from pnc_core.images import ImageSet
from pnc_core.module.composed import attach
from pnc_core.module.composition import read_composition
from tests.unit import seeds
from tests.unit.serving import world
from tests.unit.serving.world import World
from workers.networks.composing import run_composition


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = world.make(tmp_path_factory.mktemp("zoo"))
    yield made
    made.zoo.close()


@pytest.fixture
def dataset(here: World, tmp_path: Path) -> str:
    """Random images of all ten classes, as PNG files in a Parquet file."""
    pictures = torch.randint(0, 256, (120, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = ImageSet(pictures, torch.arange(120) % 10, tuple("0123456789"))
    write_parquet(tmp_path / "images.parquet", png_rows(images), images.classes)
    content = (tmp_path / "images.parquet").read_bytes()
    with here.zoo.database.write() as session:
        up = seeds.upload(session, here.zoo, content)
        contents = datasets.inspect(io.BytesIO(content))
        return datasets.register(session, name="noise", upload_id=up.id, contents=contents).id


def _claimed(here: World, dataset: str, **more: object) -> Lease:
    ids = [here.modules[1], here.modules[0]]
    with here.zoo.database.write() as session:
        compositions.submit(
            session, target="low", module_ids=ids, dataset_id=dataset, head="affine", **more,  # type: ignore[arg-type]
        )  # fmt: skip
        lease = runs.claim(session, "worker")
    assert lease is not None
    return lease


def _row(here: World, lease: Lease) -> CompositionRow:
    with here.zoo.database.read() as session:
        return compositions.get(session, lease.id)


def test_the_file_in_the_store_fits_the_modules(here: World, dataset: str, tmp_path: Path) -> None:
    lease = _claimed(here, dataset, keep_anyway=True)
    run_composition(here.zoo, lease, lambda: False)
    row = _row(here, lease)
    assert (row.state, row.progress, row.problem) == ("ready", 1.0, None)
    assert row.key is not None
    with here.zoo.store.open(row.key) as file:
        (tmp_path / "one.safetensors").write_bytes(file.read())
    made = read_composition(tmp_path / "one.safetensors")
    composed = attach(here.target[0], [here.bundles[0], here.bundles[1]], composition=made)
    assert composed.balance != ((1.0, 0.0), (1.0, 0.0))
    assert row.manifest is not None
    assert set(row.manifest["verdict"]["figures"]) == {"module", "plain", "ensemble", "probe", "alone"}
    with here.zoo.database.write() as session, pytest.raises(LeaseLost):
        runs.heartbeat(session, lease)


def test_a_dataset_without_images_of_a_module_is_refused_with_its_reason(here: World, tmp_path: Path) -> None:
    """The request names classes that the file has; their images cannot be decoded."""
    with here.zoo.database.write() as session:
        broken = seeds.dataset(session, here.zoo).id
    lease = _claimed(here, broken)
    run_composition(here.zoo, lease, lambda: False)
    row = _row(here, lease)
    assert row.problem is not None
    assert (row.state, row.problem["code"]) == ("failed", "invalid_data")
    assert row.key is None


def test_a_stopped_worker_leaves_no_result(here: World, dataset: str) -> None:
    lease = _claimed(here, dataset)
    before = set(here.zoo.store.older_than(-10))
    run_composition(here.zoo, lease, lambda: True)
    assert _row(here, lease).state == "running"
    assert set(here.zoo.store.older_than(-10)) == before
    with here.zoo.database.write() as session:
        runs.release(session, lease)
    assert _row(here, lease).state == "queued"
    with here.zoo.database.write() as session:
        compositions.cancel(session, lease.id)


def test_a_worker_that_lost_its_lease_publishes_nothing(here: World, dataset: str) -> None:
    lease = _claimed(here, dataset, keep_anyway=True)
    with here.zoo.database.write() as session:
        runs.release(session, lease)
    with pytest.raises(LeaseLost):
        run_composition(here.zoo, lease, lambda: False)
    row = _row(here, lease)
    assert (row.state, row.key) == ("queued", None)
    with here.zoo.database.write() as session:
        compositions.cancel(session, lease.id)
