"""Context of a page: the visitor, the database on threads, and the serving process."""

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
KEY = "pnc.page_context"
"""Key of the page context in a request's scope."""


class Verdict(Protocol):
    """The serving process's result for a new generation."""

    @property
    def refusal(self) -> dict[str, Any] | None:
        """Problem document if the serving process refuses the generation; None: it does not."""


class Serving(Protocol):
    """A client of the serving process."""

    async def sync(self, deployment: str, generation: int) -> Verdict:
        """Announce a new generation and wait for its verdict."""

    async def fetch(
        self,
        method: str,
        *parts: str,
        query: str = "",
        content: bytes = b"",
        media_type: str = "",
        workspace: str | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the response to a request at the path of these parts; 503 if there is no response."""


@dataclass(frozen=True)
class PageContext:
    """Context of the page of one visitor."""

    zoo: Zoo
    """The zoo, confined to the visitor's workspace."""
    serving: Serving
    caller: Caller = ANYBODY
    """The visitor."""
    address: str = ""
    """Network address of the visitor."""

    def seen_by(self, caller: Caller, address: str) -> "PageContext":
        """The context for one visitor."""
        return replace(self, zoo=self.zoo.seen_by(caller), caller=caller, address=address)

    @classmethod
    def of(cls, request: Request) -> "PageContext":
        """The context of a request."""
        context = request.scope[KEY]
        assert isinstance(context, cls)
        return context

    async def read(self, work: Callable[[Session], T]) -> T:
        """Read rows on a thread; returned rows must be fully loaded, because the session ends."""
        return await PAGES.run(self._in, self.zoo.database.read, work)

    async def write(self, work: Callable[[Session], T], scope: str = "write") -> T:
        """Write rows in one transaction on a thread, and record the caller in the audit log.

        Raises:
            Forbidden: the visitor's key lacks the scope.
        """
        self.check(scope)

        def audited(session: Session) -> T:
            result = work(session)
            self._audit(session, scope)
            return result

        return await CHANGES.run(self._in, self.zoo.database.write, audited)

    async def work(self, work: Callable[[Zoo], T], scope: str = "read") -> T:
        """Run a function that opens its own transactions, on a thread; record the caller unless the scope is `read`.

        Raises:
            Forbidden: the visitor's key lacks the scope.
        """
        self.check(scope)

        def audited() -> T:
            result = work(self.zoo)
            if scope != "read":
                with self.zoo.database.write() as session:
                    self._audit(session, scope)
            return result

        return await LONG.run(audited)

    def _audit(self, session: Session, scope: str) -> None:
        if self.caller.key_id is not None:
            about = {"action": f"page:{scope}", "method": "", "path": "", "outcome": "done", "request_id": ""}
            audit.note(session, self.caller, address=self.address, **about)

    def check(self, scope: str) -> None:
        """Check that the visitor's key has a scope.

        Raises:
            Forbidden: the key lacks the scope.
        """
        if not self.caller.may(scope):
            have = sorted(self.caller.scopes)
            raise Forbidden(f"expected a key with the scope {scope!r}, got a key with {have}; sign in with another key")

    async def roll_out(self, work: Callable[[Session], Change]) -> str | None:
        """Change the desired state of a deployment, and announce the new generation.

        Returns:
            Why the serving process refused the generation, which reverts the change; None: it was not refused.
        """
        change = await self.write(work, "deploy")
        if not change.changed:
            return None
        verdict = await self.announce(change.deployment.name, change.deployment.generation)
        return None if verdict.refusal is None else str(verdict.refusal.get("detail", "no reason given"))

    async def announce(self, deployment: str, generation: int) -> Verdict:
        """Announce a generation to the serving process."""
        return await self.serving.sync(qualified(self.caller.workspace, deployment), generation)

    async def classify(self, deployment: str, image: bytes, query: str) -> dict[str, Any]:
        """The prediction of a deployment for an image, or a problem document.

        Args:
            deployment: Name of the deployment.
            image: Bytes of an image file.
            query: Query that chooses the modules, encoded: `modules=` for the target alone, or `module_set=main`.
        """
        await self.read(lambda session: None)  # fails if the visitor's key has ended
        status, body = await self.serving.fetch(
            "POST",
            *("v1", "deployments", deployment, "predict"),
            query=query,
            content=image,
            media_type="application/octet-stream",
            workspace=self.caller.workspace,
        )
        return {**_document(body), "status": status}

    def _in(self, opened: Callable[[], Any], work: Callable[[Session], T]) -> T:
        with opened() as session:
            return work(session)


def _document(body: bytes) -> dict[str, Any]:
    """The JSON object in a response of the serving process; any other body becomes a problem document."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    detail = "expected a JSON object from the serving process, got another body; try again in a moment"
    return document if isinstance(document, dict) else {"code": "bad_answer", "detail": detail}
