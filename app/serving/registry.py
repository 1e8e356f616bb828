"""What this process serves, brought to what the zoo wants.

The wanted state is in the database; the registry polls it and can be hurried.
A snapshot is built beside the served one and put in its place by one store of a
reference; if that fails, the served one stays.
"""

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from torch import nn

from app.serving.snapshot import Snapshot, compose, load_target
from app.zoo import deployments
from app.zoo.deployments import DesiredDeployment
from app.zoo.errors import NotFound, ZooError
from app.zoo.zoo import Zoo
from pnc_core.errors import PncError

log = logging.getLogger(__name__)
POLL_SECONDS = 0.5
RETRY_SECONDS = 10.0
"""A refused generation that is still wanted is tried again after this time."""


@dataclass(frozen=True)
class Refusal:
    """Why a generation is not served."""

    generation: int
    code: str
    detail: str
    until: float
    """When to try again, on the monotonic clock."""

    def document(self) -> dict[str, Any]:
        """As the zoo's row keeps it."""
        return {"code": self.code, "detail": self.detail}


class Registry:
    """Snapshots by deployment name.

    Args:
        zoo: Where wanted state, weights and bundles are.
    """

    def __init__(self, zoo: Zoo) -> None:
        self._zoo = zoo
        self._snapshots: dict[str, Snapshot] = {}
        self._refusals: dict[str, Refusal] = {}
        """The last refusal of each name: whoever asks later still gets the reason."""
        self._targets: dict[str, nn.Module] = {}
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="registry", daemon=True)

    def start(self) -> None:
        """Begin to follow the wanted state."""
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        self._thread.join()

    def get(self, name: str) -> Snapshot:
        """The snapshot that is served under a name.

        Raises:
            NotFound: nothing is.
        """
        snapshot = self._snapshots.get(name)
        if snapshot is None:
            refusal = self._refusals.get(name)
            why = f"; {refusal.detail}" if refusal else "; make it with PUT /v1/deployments/<name>"
            raise NotFound(f"expected a served deployment, got none named {name!r:.80}{why}")
        return snapshot

    def sync(self, name: str | None = None) -> None:
        """Bring one deployment, or all, to the wanted state now."""
        with self._changing:
            with self._zoo.database.read() as session:
                wanted = {d.name: d for d in deployments.desired(session)}
            for gone in self._snapshots.keys() - wanted.keys():
                del self._snapshots[gone]
            for deployment in wanted.values():
                if name in (None, deployment.name):
                    self._converge(deployment)
            used = {d.version_id for d in wanted.values()}
            self._targets = {key: network for key, network in self._targets.items() if key in used}

    def refusal(self, name: str, generation: int) -> Refusal | None:
        """Why a generation is not served, if it was refused; also when it is no longer wanted."""
        refusal = self._refusals.get(name)
        return refusal if refusal is not None and refusal.generation == generation else None

    def settled(self) -> bool:
        """Is every wanted generation served or refused?"""
        with self._zoo.database.read() as session:
            wanted = deployments.desired(session)
        return all(self._is_settled(d) for d in wanted)

    def _is_settled(self, wanted: DesiredDeployment) -> bool:
        served, refused = self._snapshots.get(wanted.name), self._refusals.get(wanted.name)
        return wanted.generation in {s.generation for s in (served, refused) if s is not None}

    def _is_due(self, wanted: DesiredDeployment) -> bool:
        refused = self._refusals.get(wanted.name)
        again = refused is not None and refused.generation == wanted.generation and time.monotonic() >= refused.until
        return again or not self._is_settled(wanted)

    def _converge(self, wanted: DesiredDeployment) -> None:
        """Serve what is wanted, or say why not; one deployment's trouble is no other's."""
        if not self._is_due(wanted):
            return
        try:
            if wanted.version_id not in self._targets:
                self._targets[wanted.version_id] = load_target(self._zoo, wanted)
            snapshot = compose(self._zoo, wanted, self._targets[wanted.version_id])
        except (PncError, ZooError) as error:
            self._refuse(wanted, error.code, str(error))
        except Exception as error:
            log.exception("%s: cannot serve generation %d", wanted.name, wanted.generation)
            detail = f"expected to load generation {wanted.generation}, got {type(error).__name__}; see serving's log"
            self._refuse(wanted, "internal_error", detail)
        else:
            self._snapshots[wanted.name] = snapshot
            with self._zoo.database.write() as session:
                deployments.observe(session, wanted.name, wanted.generation)
            log.info("%s: serving generation %d, %d modules", wanted.name, wanted.generation, len(wanted.modules))

    def _refuse(self, wanted: DesiredDeployment, code: str, detail: str) -> None:
        refusal = Refusal(wanted.generation, code, detail, time.monotonic() + RETRY_SECONDS)
        self._refusals[wanted.name] = refusal
        with self._zoo.database.write() as session:
            deployments.refuse(session, wanted.name, wanted.generation, refusal.document())

    def _poll(self) -> None:
        while not self._stop.is_set():
            try:
                self.sync()
            except Exception:
                log.exception("cannot follow the wanted state; trying again")
            self._stop.wait(POLL_SECONDS)
