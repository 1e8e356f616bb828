"""Server-sent events: parse a stream, and resume a broken stream after its last event."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx

from pnc_client.http import RETRYABLE, Http, checked
from pnc_client.schemas.jobs import Event

READ_SECONDS = 60.0
"""Seconds without data after which the connection counts as dead; the service pings every 15 s."""


@dataclass
class Message:
    """One message of a stream."""

    event: str = "message"
    data: str = ""


def parse(lines: Iterable[str]) -> Iterator[Message]:
    """The messages of an event stream; comments, which the service sends as pings, are skipped."""
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
    """Events of a job with numbers above `after`, until the job ends.

    Raises:
        ApiError: the job does not exist, or the service was busy at every attempt.
        ServiceUnreachable: the connection broke at every attempt without a new event.
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
