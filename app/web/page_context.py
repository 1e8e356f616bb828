"""What pages work with: the open zoo, off the event loop, and the serving process."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from sqlalchemy.orm import Session
from starlette.requests import Request

from app.access import audit
from app.access.keys import ANYBODY, Caller
from app.db.isolation import qualified
from app.deployments.service import Change
from app.errors import Forbidden
from app.process.threads import CHANGES, LONG, PAGES
from app.zoo import Zoo

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

    async def fetch(
        self,
        method: str,
        *parts: str,
        query: str = "",
        content: bytes = b"",
        media_type: str = "",
        workspace: str | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the answer at the path of these parts; 503 when there is none."""


@dataclass(frozen=True)
class PageContext:
    """What pages work with."""

    zoo: Zoo
    """As the visitor's workspace sees it."""
    serving: Serving
    caller: Caller = ANYBODY
    """The visitor."""
    address: str = ""
    """Where the visitor comes from."""

    def seen_by(self, caller: Caller, address: str) -> "PageContext":
        """The desk of one visitor."""
        return replace(self, zoo=self.zoo.seen_by(caller), caller=caller, address=address)

    @classmethod
    def of(cls, request: Request) -> "PageContext":
        """The desk of the service that a request came to."""
        context = request.scope[KEY]
        assert isinstance(context, cls)
        return context

    async def read(self, work: Callable[[Session], T]) -> T:
        """Read rows on a thread; what is returned must be loaded."""
        return await PAGES.run(self._in, self.zoo.database.read, work)

    async def write(self, work: Callable[[Session], T], scope: str = "write") -> T:
        """Write rows in one transaction on a thread, and note who did.

        Raises:
            Forbidden: the visitor's key lacks the scope.
        """
        self.check(scope)

        def noted(session: Session) -> T:
            done = work(session)
            self._note(session, scope)
            return done

        return await CHANGES.run(self._in, self.zoo.database.write, noted)

    async def work(self, work: Callable[[Zoo], T], scope: str = "read") -> T:
        """Do on a thread what opens its own transactions; note who did, unless they only read.

        Raises:
            Forbidden: the visitor's key lacks the scope.
        """
        self.check(scope)

        def noted() -> T:
            done = work(self.zoo)
            if scope != "read":
                with self.zoo.database.write() as session:
                    self._note(session, scope)
            return done

        return await LONG.run(noted)

    def _note(self, session: Session, scope: str) -> None:
        if self.caller.key_id is not None:
            about = {"action": f"page:{scope}", "method": "", "path": "", "outcome": "done", "request_id": ""}
            audit.note(session, self.caller, address=self.address, **about)

    def check(self, scope: str) -> None:
        """See that the visitor may do what needs this scope.

        Raises:
            Forbidden: their key lacks it.
        """
        if not self.caller.may(scope):
            have = sorted(self.caller.scopes)
            raise Forbidden(f"expected a key with the scope {scope!r}, got one with {have}; sign in with another")

    async def roll_out(self, work: Callable[[Session], Change]) -> str | None:
        """Change what a deployment shall serve, and announce it.

        Returns:
            Why the serving process refused, and took the change back; None: it did not.
        """
        change = await self.write(work, "deploy")
        if not change.changed:
            return None
        verdict = await self.announce(change.deployment.name, change.deployment.generation)
        return None if verdict.refusal is None else str(verdict.refusal.get("detail", "no reason given"))

    async def announce(self, deployment: str, generation: int) -> Verdict:
        """Tell the serving process of a change."""
        return await self.serving.sync(qualified(self.caller.workspace, deployment), generation)

    async def classify(self, deployment: str, image: bytes, *, alone: bool) -> dict[str, Any]:
        """What a deployment sees in an image, or a problem document.

        Args:
            deployment: Its name.
            image: A PNG, JPEG or WebP file.
            alone: The target answers without modules.
        """
        await self.read(lambda session: None)  # sees that the visitor's key still counts
        status, body = await self.serving.fetch(
            "POST",
            *("v1", "deployments", deployment, "predict"),
            query="modules=" if alone else "",
            content=image,
            media_type="application/octet-stream",
            workspace=self.caller.workspace,
        )
        return {**_document(body), "status": status}

    def _in(self, opened: Callable[[], Any], work: Callable[[Session], T]) -> T:
        with opened() as session:
            return work(session)


def _document(body: bytes) -> dict[str, Any]:
    """An answer of the serving process; one that is no JSON object becomes a problem document."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    detail = "expected a JSON object of the serving process, got something else; try again in a moment"
    return document if isinstance(document, dict) else {"code": "bad_answer", "detail": detail}
