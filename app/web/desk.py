"""What pages work with: the open zoo, off the event loop, and the serving process."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import anyio.to_thread
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.zoo.deployments import Change
from app.zoo.zoo import Zoo

T = TypeVar("T")
KEY = "pnc.desk"
"""Where the desk lies in a request's scope."""


class Verdict(Protocol):
    """What the serving process says to a new generation."""

    @property
    def refusal(self) -> dict[str, Any] | None:
        """A problem document, when it will not serve it."""


class Serving(Protocol):
    """The way to the serving process."""

    async def sync(self, deployment: str, generation: int) -> Verdict:
        """Announce a change, and ask what becomes of it."""

    async def fetch(self, method: str, path: str, content: bytes = b"", media_type: str = "") -> tuple[int, bytes]:
        """Status and body of an answer; 503 when it does not answer."""


@dataclass(frozen=True)
class Desk:
    """What pages work with."""

    zoo: Zoo
    serving: Serving

    @classmethod
    def of(cls, request: Request) -> "Desk":
        """The desk of the service that a request came to."""
        desk = request.scope[KEY]
        assert isinstance(desk, cls)
        return desk

    async def read(self, work: Callable[[Session], T]) -> T:
        """Read rows on a thread; what is returned must be loaded."""
        return await anyio.to_thread.run_sync(functools.partial(self._in, self.zoo.database.read, work))

    async def write(self, work: Callable[[Session], T]) -> T:
        """Write rows in one transaction on a thread."""
        return await anyio.to_thread.run_sync(functools.partial(self._in, self.zoo.database.write, work))

    async def roll_out(self, work: Callable[[Session], Change]) -> str | None:
        """Change what a deployment shall serve, and announce it.

        Returns:
            Why the serving process refused, and took the change back; None: it did not.
        """
        change = await self.write(work)
        if not change.changed:
            return None
        verdict = await self.serving.sync(change.deployment.name, change.deployment.generation)
        return None if verdict.refusal is None else str(verdict.refusal.get("detail", "no reason given"))

    async def classify(self, deployment: str, image: bytes, *, alone: bool) -> dict[str, Any]:
        """What a deployment sees in an image, or a problem document.

        Args:
            deployment: Its name.
            image: A PNG, JPEG or WebP file.
            alone: The target answers without modules.
        """
        path = f"/v1/deployments/{deployment}/predict" + ("?modules=" if alone else "")
        status, body = await self.serving.fetch("POST", path, image, "application/octet-stream")
        document: dict[str, Any] = json.loads(body)
        return {**document, "status": status}

    def _in(self, opened: Callable[[], Any], work: Callable[[Session], T]) -> T:
        with opened() as session:
            return work(session)
