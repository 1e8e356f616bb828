"""A zoo with real networks and real bundles, and a real server over it, all in this process."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
import uvicorn
from sqlalchemy.orm import Session

from app.deployments import service as deployments
from app.jobs import runs
from app.jobs import service as jobs
from app.jobs.service import JobRequest
from app.models import service as models
from app.serving.main import create_serving_app
from app.settings import Settings
from app.zoo import Zoo
from pnc_core.config import CloneConfig, Position
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.module.bundle import Bundle
from tests.unit import seeds
from tests.unit.pnc_core import nets

HERE = Position(target="blocks.1", source="blocks.1")
SETS = (("5",), ("6", "7"), ("8",))
NAME = "digits"


@dataclass(frozen=True)
class World:
    """What a test may ask for."""

    zoo: Zoo
    target: nets.Network
    bundles: tuple[Bundle, ...]
    modules: tuple[str, ...]
    """Ids, one for each of `SETS`."""

    def want(self, modules: Sequence[str], name: str = NAME) -> int:
        """Want these modules attached; returns the generation."""
        with self.zoo.database.write() as session:
            return deployments.set_modules(session, name, modules).deployment.generation

    def images(self, count: int, seed: int = 0) -> torch.Tensor:
        """uint8 (N, 1, 8, 8)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)


def network(classes: str, seed: int) -> nets.Network:
    torch.manual_seed(seed)
    spec = nets.spec("cnn", 8, 1, classes, width=8)
    return nets.randomised(nets.build_network(spec), seed).eval().requires_grad_(False), spec


def make(directory: Path, **settings: object) -> World:
    """A zoo with a target `low`, a source `high`, three modules, and a deployment of the target alone."""
    target, source = network("01234", 1), network("56789", 2)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (200, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images = ImageSet(pictures, torch.arange(200) % 10, tuple("0123456789"))
    kinds = ("affine", "router", "joint")
    bundles = tuple(
        nets.hand_made(target, source, images, HERE, classes, kind, last=kind == "joint")
        for classes, kind in zip(SETS, kinds, strict=True)
    )
    return registered(seeds.new_zoo(directory, **settings), target, source, bundles)


def registered(zoo: Zoo, target: nets.Network, source: nets.Network, bundles: tuple[Bundle, ...]) -> World:
    """A zoo with these networks and modules, and a deployment of the target alone."""
    with zoo.database.write() as session:
        for name, (net, spec) in (("low", target), ("high", source)):
            models.create(session, name=name)
            content = safetensors.torch.save(net.state_dict())
            up = seeds.upload(session, zoo, content)
            row = models.add_version(session, name, upload_id=up.id, spec=spec)
            seeds.accept(session, row, fingerprint(net))
        data = seeds.dataset(session, zoo)
        ids = tuple(_module(session, zoo, data.id, bundle) for bundle in bundles)
        deployments.put(session, NAME, "low")
    return World(zoo, target, bundles, ids)


def _module(session: Session, zoo: Zoo, data: str, bundle: Bundle) -> str:
    config = CloneConfig(classes=bundle.manifest.classes)
    jobs.submit(session, JobRequest(target="low", source="high", dataset=data, config=config))
    lease = runs.claim(session, "worker")
    assert lease is not None
    files = []
    for payload in ("thin", "full"):
        stored = zoo.store.put([bundle.payload(payload).to_bytes()])
        files.append((payload, stored.digest, stored.bytes))
    return runs.succeed(session, lease, manifest=bundle.manifest.to_dict(), bundles=files).id


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[str, uvicorn.Server]]:
    """The serving app on a real socket; its address without `http://`."""
    app = create_serving_app(settings)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30 + settings.program_seconds
    while not server.started or not app.state.host.registry.settled():
        assert time.monotonic() < deadline
        assert thread.is_alive()
        time.sleep(0.02)
    server.app = app  # type: ignore[attr-defined]
    yield f"127.0.0.1:{listening.getsockname()[1]}", server
    server.should_exit = True
    thread.join(20)
    listening.close()


__all__ = ["HERE", "NAME", "SETS", "World", "make", "network", "registered", "serving"]
