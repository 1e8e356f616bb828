"""A job's events as they happen (server-sent events)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from app.api.jobs import Id
from app.api.requests import OpenZoo
from app.api.scopes import ScopedRoute, needs
from app.api.wire import jobs as wire
from app.api.wire.problems import documented
from app.zoo import events, jobs, states
from app.zoo.errors import Unauthenticated
from app.zoo.zoo import Zoo

router = APIRouter(prefix="/v1/cloning-jobs", tags=["cloning jobs"], route_class=ScopedRoute)
POLL_SECONDS = 0.3
_EXAMPLE = 'event: state\ndata: {"seq":1,"state":"queued"}\nid: 1\n\nevent: end\ndata: {"state":"succeeded"}\n\n'
_DOCUMENTED = {"description": "Events, then one `end`", "content": {"text/event-stream": {"example": _EXAMPLE}}}


@dataclass(frozen=True)
class _Start:
    job: str
    seq: int


def _start(
    job: Id,
    zoo: OpenZoo,
    last_event_id: Annotated[int, Header(ge=0, le=2**31 - 1, description="Number of the last event received.")] = 0,
) -> _Start:
    """Runs before the answer begins, so that an unknown job is a problem document and not a stream."""
    with zoo.database.read() as session:
        return _Start(jobs.known(session, job), last_event_id)


@router.get(
    "/{job}/events/stream",
    response_class=EventSourceResponse,
    responses={200: _DOCUMENTED, **documented(404)},
)
@needs("read")
async def stream_events(start: Annotated[_Start, Depends(_start)], zoo: OpenZoo) -> AsyncIterator[ServerSentEvent]:
    """Events from the first, or after Last-Event-ID, until the job has ended; the last one is `end`."""
    seq = start.seq
    while True:
        try:
            news, end = await run_in_threadpool(_news, zoo, start.job, seq)
        except Unauthenticated:  # the key was revoked: whoever asks again hears so
            return
        for event in news:
            seq = event.seq
            yield ServerSentEvent(event=event.type, id=str(seq), data=event)
        if end is not None:
            yield ServerSentEvent(event="end", data=end)
            return
        if not news:
            await anyio.sleep(POLL_SECONDS)


def _news(zoo: Zoo, job_id: str, seq: int) -> tuple[list[wire.Event], wire.Job | None]:
    """Events after number `seq`, and the job if it has ended and these are the last."""
    with zoo.database.read() as session:
        rows = events.events_after(session, job_id, seq)
        job = jobs.get(session, job_id, *jobs.AS_SHOWN)
        ended = job.state in states.TERMINAL and (rows[-1].seq if rows else seq) >= job.last_seq
        return [wire.Event.model_validate(row) for row in rows], wire.Job.of(job) if ended else None
