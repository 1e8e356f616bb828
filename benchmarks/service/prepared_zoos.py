"""Makes the network that all servers serve, and zoos that hold it with 0, 1 and 3 modules."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from app.datasets import service as datasets
from app.db.engine import migrate
from app.deployments import service as deployments
from app.jobs import runs
from app.jobs import service as jobs
from app.jobs.service import JobRequest
from app.models import service as models
from app.models import validation
from app.settings import Settings
from app.store import uploads
from app.zoo import Zoo, open_zoo
from pnc_core.analysis.evaluation import multiply_accumulates
from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.graph.architectures import build_network
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.clone import clone
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach

IMAGE = (3, 32, 32)
NAME, SOURCES = "target", 3


def prepare(out: Path) -> dict[int, float]:
    """Write the network for the peers, and zoos with 0, 1 and 3 modules attached.

    Returns:
        By number of modules: multiply-accumulates of the composed network, divided by the target's.
    """
    torch.set_num_threads(1)
    classes = [f"class {number}" for number in range(10 + 2 * SOURCES)]
    target, spec = _network(tuple(classes[:10]), 0)
    (out / "model").mkdir(exist_ok=True)
    safetensors.torch.save_file(target.state_dict(), out / "model" / "target.safetensors")
    (out / "model" / "spec.json").write_text(json.dumps(asdict(spec)))
    (out / "mlserver").mkdir(exist_ok=True)
    settings = {"name": NAME, "implementation": "mls.Network"}
    (out / "mlserver" / "model-settings.json").write_text(json.dumps(settings))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (160, *IMAGE), generator=generator, dtype=torch.uint8)
    sources, bundles = [], []
    for number in range(SOURCES):
        mine = tuple(classes[10 + 2 * number : 12 + 2 * number])
        source = _network(mine, 1 + number)
        images = ImageSet(noise, torch.arange(len(noise)) % 12, (*classes[:10], *mine))
        position = Position(target="layer2.0", source="layer2.0")
        # `keep=1.0` makes bundles of 1 MB; pruned bundles of this small network have half of that.
        config = CloneConfig(
            classes=mine,
            preset="fast",
            position=position,
            views=1,
            tap_grid=1,
            keep=1.0,
            max_size=2.0,
            keep_anyway=True,
        )
        sources.append(source)
        bundles.append(clone((target, spec), source, images, config))
    cost, composed = {0: 1.0}, target
    for number, bundle in enumerate(bundles, 1):
        composed = attach(composed, bundle)
        cost[number] = multiply_accumulates(composed, spec) / multiply_accumulates(target, spec)
    for modules in (0, 1, SOURCES):
        _fill(out / f"zoo-{modules}", (target, spec), sources, bundles, modules)
    return cost


def _network(classes: tuple[str, ...], seed: int) -> tuple[torch.nn.Module, NetworkSpec]:
    torch.manual_seed(seed)
    spec = NetworkSpec(architecture="resnet20", classes=classes, input_size=IMAGE, mean=(0.5,) * 3, std=(0.25,) * 3)
    return build_network(spec).requires_grad_(False), spec


def _fill(
    folder: Path,
    target: tuple[torch.nn.Module, NetworkSpec],
    sources: Sequence[tuple[torch.nn.Module, NetworkSpec]],
    bundles: Sequence[Bundle],
    attached: int,
) -> None:
    if (folder / "zoo.db").exists():
        return
    zoo = open_zoo(Settings(data_dir=folder))
    migrate(zoo.database)
    with zoo.database.write() as session:
        for name, (network, spec) in ((NAME, target), *((f"source-{i}", s) for i, s in enumerate(sources))):
            models.create(session, name=name)
            upload_id = upload(session, zoo, safetensors.torch.save(network.state_dict()))
            models.add_version(session, name, upload_id=upload_id, spec=spec)
            lease = validation.claim_validation(session, "benchmark")
            assert lease is not None
            validation.accept_version(session, lease, fingerprint=fingerprint(network), parameters=0, macs=0)
        deployments.put(session, NAME, NAME)
        for number, bundle in enumerate(bundles):
            module = _module(session, zoo, number, bundle)
            if number < attached:
                deployments.attach(session, NAME, module)
    zoo.close()


def upload(session: Any, zoo: Zoo, content: bytes) -> str:
    """Store bytes as a completed upload and return its id."""
    row = uploads.declare(
        session, uploads.draft(bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), limit=10**9)
    )
    return uploads.complete(session, row.id, zoo.store.put([content])).id


def _module(session: Any, zoo: Zoo, number: int, bundle: Bundle) -> str:
    """Insert the rows that a finished job leaves; returns the module's id."""
    every = (*bundle.manifest.target.classes, *bundle.manifest.classes)
    contents = datasets.Contents(rows=10 * len(every), classes=every, counts=dict.fromkeys(every, 10))
    data = datasets.register(
        session, name=f"noise-{number}", upload_id=upload(session, zoo, f"{number}".encode()), contents=contents
    )
    config = CloneConfig(classes=bundle.manifest.classes)
    jobs.submit(session, JobRequest(target=NAME, source=f"source-{number}", dataset=data.id, config=config))
    lease = runs.claim(session, "benchmark")
    assert lease is not None
    stored = [(p, zoo.store.put([bundle.payload(p).to_bytes()])) for p in ("thin", "full")]
    files = [(payload, blob.digest, blob.bytes) for payload, blob in stored]
    return runs.succeed(session, lease, manifest=bundle.manifest.to_dict(), bundles=files).id
