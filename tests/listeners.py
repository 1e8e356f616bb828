"""Measures requests while many event streams are open, of which every second one is not read.

    python -m tests.listeners [--streams 500] [--rounds 200]

starts two APIs on separate zoos, opens the streams at one of them, and sends requests to both in turn.
"""

import argparse
import os
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from app.db.leases import Lease
from app.jobs import events, runs
from app.jobs import service as jobs
from app.zoo import Zoo
from tests.services.processes import free_port
from tests.unit import seeds

PATHS = ("/healthz", "/v1/models")
START_SECONDS = 90
HISTORY, WORDS = 2000, 2000
"""Number of events of the job with a long history, and letters per event: more than a socket's buffers hold."""
STUCK = 10
"""Number of unread streams of that job."""
SETTLE_SECONDS = 3.0
"""Seconds for all streams to send their past events before the measurement."""
EVENT_SECONDS = 0.1
"""Seconds between two events of the job that all other streams follow."""


@dataclass(frozen=True)
class Timing:
    """Latency of requests to one path, in seconds."""

    median: float
    p99: float


@contextmanager
def alone(name: str, zoo: Zoo, **settings: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run only `pnc api` or `pnc serve` on a zoo's directory; yields its URL and process.

    Its log is `api.log` or `serve.log` in the directory.
    """
    port, folder = free_port(), zoo.settings.data_dir
    command = [sys.executable, "-m", "app.cli", name, "--port", str(port), "--data-dir", str(folder)]
    environment = {**os.environ, **settings}
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            assert process.poll() is None, (folder / f"{name}.log").read_text()
            assert time.monotonic() < deadline, f"{name} did not become ready"
            time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthz", timeout=5).status_code == 200
    return False


def seeded(folder: Path) -> tuple[Zoo, Lease, str]:
    """A new zoo, the lease of its running job, and the id of a job with a long history."""
    zoo = seeds.new_zoo(folder)
    with zoo.database.write() as session:
        request = seeds.request(session, zoo)
        running, long = jobs.submit(session, request), jobs.submit(session, request)
        for _ in range(HISTORY):
            events.emit(session, long, "progress", "x" * WORDS)
        lease = runs.claim(session, "listeners")
        assert lease is not None
        assert lease.id == running.id
        return zoo, lease, long.id


@contextmanager
def crowd(url: str, job: str, long: str, number: int) -> Iterator[list[socket.socket]]:
    """Open event streams. Every second stream is read; the first `STUCK` unread ones follow the job with a long
    history."""
    allow_files(2 * number)
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    with ExitStack() as stack:
        streams = []
        for index in range(number):
            followed = long if index % 2 and index < 2 * STUCK else job
            stream = stack.enter_context(socket.create_connection((place.hostname, place.port), 60))
            stream.sendall(
                f"GET /v1/cloning-jobs/{followed}/events/stream HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode()
            )
            streams.append(stream)
        stack.enter_context(_reading(streams[::2]))
        time.sleep(SETTLE_SECONDS)
        yield streams


@contextmanager
def _reading(streams: Sequence[socket.socket]) -> Iterator[None]:
    """Read all these streams in one thread; each has responded before the block begins."""
    stop = threading.Event()
    answered: set[int] = set()
    odd: list[bytes] = []

    def read() -> None:
        with selectors.DefaultSelector() as selector:
            for stream in streams:
                selector.register(stream, selectors.EVENT_READ)
            while not stop.is_set():
                for key, _ in selector.select(0.1):
                    received = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if key.fd not in answered and not received.startswith(b"HTTP/1.1 200"):
                        odd.append(received)
                    answered.add(key.fd)
                    if not received:
                        selector.unregister(key.fileobj)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while len(answered) < len(streams) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not odd, odd[0]
        assert len(answered) == len(streams), f"{len(answered)} of {len(streams)} streams responded"
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def chatting(zoo: Zoo, lease: Lease) -> Iterator[None]:
    """Write an event of the leased job every `EVENT_SECONDS`."""
    stop = threading.Event()

    def chat() -> None:
        while not stop.wait(EVENT_SECONDS):
            with zoo.database.write() as session:
                runs.record(session, lease, stage="training", message="one more", progress=0.5)

    thread = threading.Thread(target=chat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def timed(urls: Sequence[str], rounds: int) -> list[dict[str, Timing]]:
    """Latencies of each path at each service. Requests alternate, so that other load on the machine affects all
    alike."""
    taken: dict[tuple[str, str], list[float]] = {(url, path): [] for url in urls for path in PATHS}
    with httpx.Client(timeout=60) as client:
        for _ in range(rounds):
            for url, path in taken:
                began = time.perf_counter()
                client.get(url + path).raise_for_status()
                taken[url, path].append(time.perf_counter() - began)
    return [{path: _timing(taken[url, path]) for path in PATHS} for url in urls]


def _timing(taken: list[float]) -> Timing:
    return Timing(statistics.median(taken), sorted(taken)[int(0.99 * len(taken))])


@dataclass(frozen=True)
class Found:
    """Latencies of the same requests at two services, and memory of the service with streams."""

    idle: dict[str, Timing]
    """Latencies at the service without streams."""
    crowded: dict[str, Timing]
    bytes_before: int
    bytes_after: int
    """Memory of the service before and with streams."""


def compared(folder: Path, streams: int, rounds: int) -> Found:
    """Measure two equal services, one of them with open streams; a job of each has events all the time."""
    limits = {"PNC_MAX_STREAMS": str(streams), "PNC_MAX_STREAMS_PER_KEY": str(streams)}
    with ExitStack() as stack:
        zoo, lease, long = seeded(folder / "crowded")
        stack.callback(zoo.close)
        other, other_lease, _ = seeded(folder / "idle")
        stack.callback(other.close)
        url, process = stack.enter_context(alone("api", zoo, **limits))
        idle, _ = stack.enter_context(alone("api", other))
        stack.enter_context(chatting(zoo, lease))
        stack.enter_context(chatting(other, other_lease))
        timed([idle, url], 5)
        before = process.memory_info().rss
        with crowd(url, lease.id, long, streams):
            quiet, beside = timed([idle, url], rounds)
            return Found(quiet, beside, before, process.memory_info().rss)


def allow_files(number: int) -> None:
    """Raise the limit of open files of this process by `number`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + 1000
    if resource.RLIM_INFINITY not in (soft, hard) and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def main() -> None:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compared(Path(folder), asked.streams, asked.rounds)
    print(f"{asked.streams} open streams, every second one unread; milliseconds at both services")
    print(f"{'':12}{'without streams':>20}{'with streams':>20}{'ratio of medians':>18}")
    for path in PATHS:
        cells = (f"{1000 * t.median:.1f} p99 {1000 * t.p99:.0f}" for t in (found.idle[path], found.crowded[path]))
        ratio = found.crowded[path].median / found.idle[path].median
        print(f"{path:12}" + "".join(f"{cell:>20}" for cell in cells) + f"{ratio:>18.1f}")
    grown = found.bytes_after - found.bytes_before
    print(f"memory of the API: {found.bytes_before / 2**20:.0f} MiB, and {grown / 2**20:.0f} MiB for the streams")


if __name__ == "__main__":
    main()
