"""The application on a real socket, with required keys and at least one row of every kind."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from sqlalchemy import update

from app.access import keys
from app.access.tables import KeyRow
from app.db import engine
from app.deployments import service as deployments
from app.main import create_app
from app.settings import Settings
from app.zoo import Zoo
from tests.services.processes import free_port
from tests.unit import seeds
from tests.unit.inprocess import FakeServing
from tests.unit.keyed import OWN


@dataclass(frozen=True)
class Fuzzed:
    """A running application and a key with all scopes."""

    url: str
    zoo: Zoo
    key_id: str
    secret: str

    def restore_key(self) -> None:
        """Undo a revocation of the key, because a random request may revoke it."""
        with self.zoo.database.write() as session:
            session.execute(update(KeyRow).where(KeyRow.id == self.key_id).values(revoked_at=None))


@contextmanager
def running(folder: Path) -> Iterator[Fuzzed]:
    """Run the application within a block."""
    settings = Settings(
        data_dir=folder,
        serving_url="http://serving",
        require_keys=True,
        internal_key=OWN,
        pages=False,
        serving_timeout=1.0,
    )
    serving = FakeServing()
    app = create_app(settings, serving_transport=serving.transport)
    zoo: Zoo = app.state.zoo
    engine.migrate(zoo.database)
    serving.zoo = zoo
    with zoo.database.write() as session:
        key, secret = keys.create(session, name="fuzzer", scopes=["admin"])
        module = seeds.module(session, zoo)
        deployments.put(session, "digits", "low")
        deployments.attach(session, "digits", module.id)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        _await(f"http://127.0.0.1:{port}/healthz")
        yield Fuzzed(f"http://127.0.0.1:{port}", zoo, key.id, secret)
    finally:
        server.should_exit = True
        thread.join(10)


def _await(url: str) -> None:
    for _ in range(200):
        try:
            httpx.get(url, timeout=1, trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise TimeoutError(url)
