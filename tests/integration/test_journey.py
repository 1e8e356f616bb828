"""A user's way through the service, from two trained networks to a served composed network and back."""

import hashlib
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors import safe_open

from app.demo import CLONED, LOW, Material, png
from pnc_client import ApiError, Client, Dataset
from pnc_core import attach, build_network, detach, fingerprint, load_network, read_bundle
from pnc_core.module.manifest import Manifest
from tests.integration.conftest import QUICK, Up


def test_a_job_reports_every_step_and_ends_once(client: Client, module: str) -> None:
    job = client.jobs.get(client.modules.get(module).job)
    events = list(client.jobs.events(job.id))
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert {"loading", "screening", "inserting", "calibrating"} <= {e.stage for e in events}
    assert [e.state for e in events if e.type == "state"] == ["queued", "running", "succeeded"]
    progress = [e.progress for e in events]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    trials = list(client.jobs.trials(job.id))
    assert {t.round for t in trials} >= {0, 1}
    assert all(0 <= t.score <= 1 for t in trials)


def test_bundles_have_the_announced_digests_and_belong_together(client: Client, module: str, tmp_path: Path) -> None:
    announced = {b.payload: b for b in client.modules.get(module).bundles}
    for payload in ("thin", "full"):
        path = client.modules.download(module, payload, tmp_path / payload)
        raw = path.read_bytes()
        assert hashlib.sha256(raw).hexdigest() == announced[payload].digest
        assert len(raw) == announced[payload].bytes
        assert read_bundle(path).to_bytes() == raw  # write -> read -> write
        with safe_open(path, "pt") as file:  # the library computes the same logits
            manifest = Manifest.from_json(file.metadata()["pnc"])
            assert manifest.classes == CLONED
            assert manifest.payload == payload
            assert any(name.startswith("module.") for name in file.keys()) == (payload == "full")  # noqa: SIM118


def test_equal_jobs_give_equal_bundles(client: Client, dataset: Dataset, module: str) -> None:
    job = client.jobs.wait(client.jobs.create("digits-low", "digits-high", dataset.id, QUICK).id)
    assert job.module is not None
    assert job.module != module
    first, second = (client.modules.get(m) for m in (module, job.module))
    assert [b.digest for b in first.bundles] == [b.digest for b in second.bundles]


def test_registered_networks_are_the_trained_ones(client: Client, material: Material, dataset: Dataset) -> None:
    for name, (network, spec) in {"digits-low": material.target, "digits-high": material.source}.items():
        version = client.models.version(name, 1)
        assert version.fingerprint == fingerprint(network)
        assert version.spec == spec
        assert version.parameters == sum(p.numel() for p in network.parameters())


def test_attach_and_detach_of_a_live_deployment(
    client: Client, material: Material, dataset: Dataset, module: str, tmp_path: Path
) -> None:
    images = [png(image) for image in material.test.images[:40]]
    created = client.deployments.create("live", "digits-low")
    before = [client.deployments.predict("live", image) for image in images]
    assert all(p.modules == [] and {c.name for c in p.classes} == set(LOW) for p in before)

    attached = client.deployments.attach("live", module)
    during = [client.deployments.predict("live", image) for image in images]
    assert attached.generation == created.generation + 1 == during[0].generation
    digest = next(b.digest for b in client.modules.get(module).bundles if b.payload == "full")
    assert all([m.digest for m in p.modules] == [digest] for p in during)
    assert all({c.name for c in p.classes} == {*LOW, *CLONED} for p in during)
    assert sum(p.classes[0].name in CLONED for p in during) > 3

    client.deployments.detach("live", module)
    after = [client.deployments.predict("live", image) for image in images]
    assert [p.classes for p in after] == [p.classes for p in before]  # bit for bit
    assert {p.target_fingerprint for p in before + during + after} == {fingerprint(material.target[0])}
    client.deployments.delete("live")
    with pytest.raises(ApiError) as gone:
        client.deployments.predict("live", images[0])
    assert gone.value.status == 404


def test_a_served_and_a_local_composed_network_give_equal_logits(
    client: Client, material: Material, module: str, files: Path, tmp_path: Path
) -> None:
    client.deployments.create("twin", "digits-low")
    client.deployments.attach("twin", module)
    path = client.modules.download(module, "full", tmp_path / "full.safetensors")
    target = load_network(material.target[1], files / "digits-low.safetensors")
    composed = attach(target, path)
    from pnc_core import preprocess

    for image in material.test.images[:10]:
        served = {c.name: c.logit for c in client.deployments.predict("twin", png(image)).classes}
        with torch.inference_mode():
            local = composed(preprocess(image[None], material.target[1]))[0].tolist()
        # The served network is a folded copy. The deterministic mode serves no folded copy and has separate unit tests.
        assert [served[name] for name in composed.classes] == pytest.approx(local, rel=1e-4, abs=1e-4)
    assert detach(composed) is target
    client.deployments.delete("twin")


def test_a_module_for_another_target_is_refused_and_nothing_changes(
    client: Client, material: Material, module: str, files: Path
) -> None:
    torch.manual_seed(1)
    other = build_network(material.target[1])
    import safetensors.torch

    safetensors.torch.save_file(other.state_dict(), files / "other.safetensors")
    client.models.wait("other", client.models.push("other", material.target[1], files / "other.safetensors").number)
    client.deployments.create("wrong", "other")
    before = client.deployments.predict("wrong", png(material.test.images[0]))
    with pytest.raises(ApiError) as refused:
        client.deployments.attach("wrong", module)
    assert (refused.value.status, refused.value.code) == (409, "target_mismatch")
    after = client.deployments.predict("wrong", png(material.test.images[0]))
    assert after == before
    assert client.deployments.get("wrong").desired.modules == []


@pytest.mark.always
@pytest.mark.parametrize("damage", ["truncated", "one byte flipped", "not readable"])
def test_serving_refuses_a_damaged_bundle_and_keeps_what_it_serves(
    service: Up, client: Client, material: Material, dataset: Dataset, module: str, damage: str
) -> None:
    config = replace(QUICK, classes=("5",), seed=len(damage))
    serving = frozen(service)  # otherwise it could load the module while the bundle is still intact
    try:
        job = client.jobs.wait(client.jobs.create("digits-low", "digits-high", dataset.id, config).id)
        assert job.module is not None
        bundles = client.modules.get(job.module).bundles
        spoil(service.object_path(next(b.digest for b in bundles if b.payload == "full")), damage)
    finally:
        serving.resume()

    name = damage.replace(" ", "-")
    client.deployments.create(name, "digits-low")
    client.deployments.attach(name, module)
    before = client.deployments.predict(name, png(material.test.images[0]))
    with pytest.raises(ApiError) as refused:
        client.deployments.attach(name, job.module)
    assert refused.value.status == 409
    assert refused.value.code == ("internal_error" if damage == "not readable" else "digest_mismatch")
    after = client.deployments.predict(name, png(material.test.images[0]))
    assert [one.name for one in after.classes] == [one.name for one in before.classes]
    # The module's program may have become ready in between, which changes the last bits.
    assert [one.logit for one in after.classes] == pytest.approx([one.logit for one in before.classes], rel=1e-4)
    assert after.modules == before.modules
    assert client.deployments.get(name).desired.modules == [module]
    client.deployments.create(f"{name}-neighbour", "digits-low")  # a problem of one deployment does not affect others
    assert client.deployments.get(f"{name}-neighbour").settled


def frozen(service: Up) -> psutil.Process:
    """Suspend the serving process while it holds no lock of the database."""
    serving = service.child("app.serving")
    for _ in range(20):
        serving.suspend()
        with closing(sqlite3.connect(service.data_dir / "zoo.db", timeout=2)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                serving.resume()
                time.sleep(0.1)
            else:
                return serving
    raise AssertionError("the database is always locked")


def spoil(path: Path, damage: str) -> None:
    raw = bytearray(path.read_bytes())
    path.unlink()
    if damage == "not readable":
        path.mkdir()
        return
    raw[-2000] ^= 0x40
    path.write_bytes(raw[:-8] if damage == "truncated" else raw)
