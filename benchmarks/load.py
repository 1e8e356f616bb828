"""Keeps a server busy over a number of connections, and counts what comes back.

Requests are bytes made beforehand and answers are only measured, so that the client takes as
little of the machine as it can. It runs in a process of its own.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.pool import Pool

WARM_UP = 0.5
"""Seconds before counting begins."""


@dataclass(frozen=True)
class Request:
    """One HTTP request, as it goes over the wire."""

    port: int
    raw: bytes

    @classmethod
    def post(cls, port: int, path: str, body: bytes, **headers: str) -> "Request":
        """A POST with a body."""
        named = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
        return cls(port, f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)


@dataclass(frozen=True)
class Load:
    """What was seen."""

    answers: int
    errors: int
    seconds: float
    p50: float
    """Seconds, as p99 is."""
    p99: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


def run(request: Request, connections: int, seconds: float) -> Load:
    """Ask again and again over so many connections, from another process."""
    return _other_process().apply(_run, (request, connections, seconds))


@cache
def _other_process() -> Pool:
    """One for all loads: it takes seconds to start."""
    return multiprocessing.get_context("spawn").Pool(1)


def _run(request: Request, connections: int, seconds: float) -> Load:
    return asyncio.run(_ask_all(request, connections, seconds))


async def _ask_all(request: Request, connections: int, seconds: float) -> Load:
    begin = time.perf_counter() + WARM_UP
    end = begin + seconds
    times: list[float] = []
    failed = await asyncio.gather(*(_ask(request, begin, end, times.append) for _ in range(connections)))
    times.sort()
    middle, late = (times[min(len(times) - 1, int(share * len(times)))] if times else 0.0 for share in (0.5, 0.99))
    return Load(len(times), sum(failed), seconds, middle, late)


async def _ask(request: Request, begin: float, end: float, note: Callable[[float], None]) -> int:
    """One connection; returns how many answers were no success."""
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
