"""A load generator: sends one request again and again over several connections and measures latency.

Requests are bytes made in advance and response bodies are not parsed, so that the client uses little
processor time. It runs in a separate process.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.pool import Pool

WARM_UP = 0.5
"""Seconds at the start that are not counted."""


@dataclass(frozen=True)
class Request:
    """The bytes of one HTTP request."""

    port: int
    raw: bytes

    @classmethod
    def post(cls, port: int, path: str, body: bytes, **headers: str) -> "Request":
        """Make a POST request; underscores in header names become hyphens."""
        named = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
        return cls(port, f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)


@dataclass(frozen=True)
class LoadResult:
    """Responses, errors and latencies of one measurement."""

    answers: int
    errors: int
    seconds: float
    p50: float
    """Median latency in seconds; `p99` is the 99th percentile in seconds."""
    p99: float

    @property
    def rate(self) -> float:
        """Successful responses per second."""
        return self.answers / self.seconds


def run(request: Request, connections: int, seconds: float) -> LoadResult:
    """Send the request repeatedly over several connections for some seconds, from another process."""
    return _other_process().apply(_run, (request, connections, seconds))


@cache
def _other_process() -> Pool:
    """A process pool of one, reused because it takes seconds to start."""
    return multiprocessing.get_context("spawn").Pool(1)


def _run(request: Request, connections: int, seconds: float) -> LoadResult:
    return asyncio.run(_ask_all(request, connections, seconds))


async def _ask_all(request: Request, connections: int, seconds: float) -> LoadResult:
    begin = time.perf_counter() + WARM_UP
    end = begin + seconds
    times: list[float] = []
    failed = await asyncio.gather(*(_ask(request, begin, end, times.append) for _ in range(connections)))
    times.sort()
    middle, late = (times[min(len(times) - 1, int(share * len(times)))] if times else 0.0 for share in (0.5, 0.99))
    return LoadResult(len(times), sum(failed), seconds, middle, late)


async def _ask(request: Request, begin: float, end: float, note: Callable[[float], None]) -> int:
    """Send over one connection; returns the number of responses without status 200."""
    errors = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", request.port)
    while (started := time.perf_counter()) < end:
        writer.write(request.raw)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        now = time.perf_counter()
        if b" 200 " not in lines[0] + b" ":
            errors += 1
        elif begin <= started and now <= end:
            note(now - started)
    writer.close()
    return errors
