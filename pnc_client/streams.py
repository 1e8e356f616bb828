"""Server-sent events: parse a stream, and go on where a broken one ended."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx

from pnc_client.http import RETRYABLE, Http, checked
from pnc_client.schemas.jobs import Event

READ_SECONDS = 60.0
"""The service pings every 15 s; four times that is a dead connection."""


@dataclass
class Message:
    """One message of a stream."""

    event: str = "message"
    data: str = ""


def parse(lines: Iterable[str]) -> Iterator[Message]:
    """Messages of an event stream; comments, which are pings, are passed over."""
    message = Message()
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                message.data = "\n".join(data)
                yield message
            message, data = Message(), []
        elif name == "event":
            message.event = value
        elif name == "data":
            data.append(value)


def follow(http: Http, path: str, after: int = 0) -> Iterator[Event]:
    """Events of a job after number `after`, until its last.

    Raises:
        ApiError: there is no such job, or the service was busy again and again.
        ServiceUnreachable: the connection broke again and again without any news.
    """
    failures = 0
    while True:
        try:
            for message in _messages(http, path, after):
                if message.event == "end":
                    return
                event = Event.model_validate(json.loads(message.data))
                after, failures = event.seq, 0
                yield event
        except RETRYABLE as error:
            failures += 1
            http.pause(error, failures)


def _messages(http: Http, path: str, after: int) -> Iterator[Message]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    timeout = httpx.Timeout(http.client.timeout.connect, read=READ_SECONDS)
    with http.client.stream("GET", path, headers=headers, timeout=timeout) as response:
        yield from parse(checked(response).iter_lines())
    raise httpx.RemoteProtocolError("the stream ended before the job did")
