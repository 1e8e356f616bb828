"""HTTP API of event streams: a job's events as server-sent events."""

import resource
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import Response, StreamingResponse

from app.api.documented import documented
from app.api.requests import Asking, OpenZoo
from app.api.scopes import ScopedRoute, needs
from app.errors import NotFound, Unauthenticated
from app.jobs import events, states
from app.jobs import service as jobs
from app.jobs.routes import Id
from app.jobs.streams.watching import Follower, Format, Limits, Watch
from app.jobs.tables import EventRow, JobRow
from app.process.threads import STREAMS
from app.settings import Settings
from app.zoo import Zoo
from pnc_client.schemas import jobs as wire

router = APIRouter(prefix="/v1/cloning-jobs", tags=["cloning jobs"], route_class=ScopedRoute)
PING_SECONDS = 15.0
"""Interval of keep-alive comments in a stream without events: proxies and clients close silent connections."""
_EXAMPLE = 'event: state\ndata: {"seq":1,"state":"queued"}\nid: 1\n\nevent: end\ndata: {"state":"succeeded"}\n\n'
_DOCUMENTED = {"description": "Events, then one `end`", "content": {"text/event-stream": {"example": _EXAMPLE}}}
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # tells nginx not to buffer the stream


@dataclass(frozen=True)
class _Start:
    job: str
    seq: int


def _start(
    job: Id,
    zoo: OpenZoo,
    last_event_id: Annotated[int, Header(ge=0, le=2**31 - 1, description="Number of the last event received.")] = 0,
) -> _Start:
    """Check that the job exists before the answer starts, so that the error can be a problem document."""
    with zoo.database.read() as session:
        return _Start(jobs.known(session, job), last_event_id)


Start = Annotated[_Start, Depends(_start)]


async def _follower(request: Request, start: Start, caller: Asking) -> AsyncIterator[Follower]:
    """Follow the job until the answer ends, also when the client disconnects."""
    audience = caller.key_id or (request.client.host if request.client else "")
    with watch_of(request).stream(start.job, caller.key_id, audience) as follower:
        yield follower


@router.get(
    "/{job}/events/stream",
    response_class=Response,
    responses={200: _DOCUMENTED, **documented(404)},
)
@needs("read")
async def stream_events(
    request: Request, start: Start, follower: Annotated[Follower, Depends(_follower)], zoo: OpenZoo
) -> Response:
    """A job's events, from the first or after Last-Event-ID, until the job ends. The last event is `end`."""
    messages = _messages(watch_of(request), follower, zoo, start.seq)
    return StreamingResponse(messages, headers=_HEADERS, media_type="text/event-stream")


def watch_of(request: Request) -> Watch:
    """The `Watch` of the application that received a request."""
    watch = request.app.state.watch
    assert isinstance(watch, Watch)
    return watch


def open_watch(zoo: Zoo, settings: Settings) -> Watch:
    """Create the `Watch` of a process, with this module's format of events."""
    limits = Limits(lambda: min(settings.max_streams, _files() // 2), settings.max_streams_per_key)
    return Watch(zoo.database, Format(_event, _end), limits)


async def _messages(watch: Watch, follower: Follower, zoo: Zoo, seq: int) -> AsyncIterator[bytes]:
    """The bytes of a stream: past events in a few large pieces, then each new event at once."""
    while not follower.is_over:
        follower.news.clear()
        try:
            found = watch.recent(follower.job, seq)
            news, end = found if found is not None else await STREAMS.run(_read, zoo, follower.job, seq)
        except (Unauthenticated, NotFound):  # a client that reconnects gets this error as a problem document
            return
        if news:
            seq = news[-1][0]
            yield b"".join(message for _, message in news)
        if end is not None:
            yield end
            return
        if not news:
            with anyio.move_on_after(PING_SECONDS) as waited:
                await follower.news.wait()
            if waited.cancelled_caught:
                yield KEEPALIVE_COMMENT


def _read(zoo: Zoo, job_id: str, seq: int) -> tuple[list[tuple[int, bytes]], bytes | None]:
    """Numbers and messages of events after `seq`; and the end message, if the job has ended and no event is left."""
    with zoo.database.read() as session:
        rows = events.events_after(session, job_id, seq)
        job = jobs.get(session, job_id, *jobs.AS_SHOWN)
        # Without rows nothing follows `seq`, even if old events were deleted.
        ended = job.state in states.TERMINAL and (not rows or rows[-1].seq >= job.last_seq)
        return [(row.seq, _event(row)) for row in rows], _end(job) if ended else None


def _event(row: EventRow) -> bytes:
    data = wire.Event.model_validate(row).model_dump_json()
    return format_sse_event(event=row.type, id=str(row.seq), data_str=data)


def _end(job: JobRow) -> bytes:
    return format_sse_event(event="end", data_str=wire.Job.of(job).model_dump_json())


def _files() -> int:
    """The operating system's limit of open files and connections of this process; each stream needs a connection."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
