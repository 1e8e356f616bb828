"""FastAPI dependencies that several rooms use: caller, zoo, sessions, list queries, If-Match, Idempotency-Key."""

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.access.keys import ANYBODY, Caller
from app.db import idempotency
from app.db.pages import DEFAULT_LIMIT, MAX_LIMIT, Window
from app.deployments.gateway import Gateway
from app.errors import Invalid
from app.process.threads import READS, TEXTS
from app.zoo import Zoo

_GENERATION = re.compile(r'"?([0-9]{1,9})"?\Z')


# These functions are async because they do not block: FastAPI would run plain functions on a thread, which costs more.
async def _caller(request: Request) -> Caller:
    """The caller that the route has admitted; `ANYBODY` on a public route."""
    caller = request.scope["state"].get("caller", ANYBODY)
    assert isinstance(caller, Caller)
    return caller


Asking = Annotated[Caller, Depends(_caller)]


async def _zoo(request: Request, caller: Asking) -> Zoo:
    """The zoo, restricted to the caller's workspace."""
    zoo = request.app.state.zoo
    assert isinstance(zoo, Zoo)
    return zoo.seen_by(caller)


async def _gateway(request: Request) -> Gateway:
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway


OpenZoo = Annotated[Zoo, Depends(_zoo)]
OpenGateway = Annotated[Gateway, Depends(_gateway)]


async def _read_session(zoo: OpenZoo) -> AsyncIterator[Session]:
    async with READS.limiter, contextmanager_in_threadpool(zoo.database.read()) as session:
        yield session


# Writes open their session inside the route. FastAPI would close a dependency on a thread of its pool,
# and all of these threads may be waiting for the lock that this session holds.
ReadSession = Annotated[Session, Depends(_read_session)]


async def _read_all_session(request: Request) -> AsyncIterator[Session]:
    zoo: Zoo = request.app.state.zoo
    async with READS.limiter, contextmanager_in_threadpool(zoo.database.read()) as session:
        yield session


ReadAllSession = Annotated[Session, Depends(_read_all_session)]
"""A session that sees all workspaces; only for routes that need the operator's scope."""


class ListQuery(BaseModel):
    """Query of a list."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    """Most items of the page."""
    after: str | None = Field(None, max_length=200)
    """`next_cursor` of the previous page."""

    def window(self) -> Window:
        """The requested page."""
        return Window(self.limit, self.after)


ListOf = Annotated[ListQuery, Query()]


class ArchiveQuery(ListQuery):
    """Query of a list of archivable things."""

    archived: bool = False
    """Include archived ones."""


ArchivesOf = Annotated[ArchiveQuery, Query()]


async def _generation(
    if_match: Annotated[str | None, Header(description="Generation that the change builds on, e.g. `3`.")] = None,
) -> int | None:
    if if_match is None or if_match == "*":
        return None
    match = _GENERATION.match(if_match)
    if match is None:
        raise Invalid.at("header:If-Match", "invalid_etag", f'expected an ETag such as "3", got {if_match!r:.80}')
    return int(match[1])


IfMatch = Annotated[int | None, Depends(_generation)]


@dataclass(frozen=True)
class Reply:
    """Answer to a POST."""

    body: BaseModel | str
    """A schema, or its JSON text."""
    status: int = 201
    location: str | None = None
    is_secret: bool = False
    """Whether the body holds a secret. It is then stored encrypted for repeated requests."""

    @property
    def text(self) -> str:
        """The body as JSON."""
        return self.body if isinstance(self.body, str) else self.body.model_dump_json()


@dataclass(frozen=True)
class Once:
    """Do the work of a POST in one transaction, and only once for each Idempotency-Key."""

    zoo: Zoo
    key: str | None
    request_digest: str
    """SHA-256 of method, path and body; empty without a key."""

    def __call__(self, work: Callable[[Session], Reply]) -> Response:
        """Do the work, or repeat the stored answer of the same request.

        Raises:
            Invalid: the key is malformed, or was used for another request.
        """
        with self.zoo.database.write() as session:
            if self.key is None:
                return _response(work(session))
            known = idempotency.recall(session, self.key, self.request_digest)
            if known is not None:
                return _response(Reply(idempotency.body_of(session, known), known.status, known.location))
            reply = work(session)
            idempotency.remember(
                session,
                self.key,
                self.request_digest,
                status=reply.status,
                location=reply.location,
                body=reply.text,
                is_secret=reply.is_secret,
            )
            return _response(reply)


def _response(reply: Reply) -> Response:
    headers = {"Location": reply.location} if reply.location else None
    return Response(reply.text, reply.status, headers, media_type="application/json")


async def _once(
    request: Request,
    zoo: OpenZoo,
    idempotency_key: Annotated[
        str | None, Header(description="Any text of at most 128 characters; a repeat within 24 h gets the same answer.")
    ] = None,
) -> Once:
    head, body = f"{request.method} {request.url.path}\n".encode(), await request.body()
    digest = "" if idempotency_key is None else await TEXTS.run(lambda: hashlib.sha256(head + body).hexdigest())
    return Once(zoo, idempotency_key, digest)


DoOnce = Annotated[Once, Depends(_once)]
