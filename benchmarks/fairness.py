"""Latency of one client while another client constantly sends requests of the largest allowed size.

    python -m benchmarks.fairness --out results           # --quick for a short test

The service is an API and a serving process with one deployment. In every round a client sends one image at a time,
first alone, then next to a second client that sends the largest requests over several connections. The result is the
ratio of both 99th percentiles within a round, because the load of the machine changes between rounds.
"""

import asyncio
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import safetensors.torch
import torch
import typer

from app.db.engine import migrate
from app.deployments import service as deployments
from app.models import service as models
from app.models import validation
from app.settings import Settings
from app.zoo import open_zoo
from benchmarks.service.prepared_zoos import upload
from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.identity import fingerprint

NAME, IMAGE = "target", (3, 32, 32)
LARGE_IMAGES = 4096
"""Images in a large request: the default of PNC_REQUEST_IMAGES."""
CONNECTIONS = 2
"""Connections of the client that sends large requests."""
START_SECONDS = 300
LONGEST_SECONDS = 60
"""How long a round waits for the end of a large request."""
HEADERS = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Round:
    """Latency in milliseconds of one image: alone, and beside large requests."""

    alone_p50: float
    alone_p99: float
    beside_p50: float
    beside_p99: float
    samples: int
    large: int
    """Large requests answered meanwhile, with any status."""
    large_images_per_s: float

    @property
    def ratio(self) -> float:
        """99th percentile beside large requests, divided by the 99th percentile alone."""
        return self.beside_p99 / self.alone_p99


def main(
    out: Annotated[Path, typer.Option(help="Folder for the zoo and fairness.json.")],
    quick: Annotated[bool, typer.Option(help="Three short rounds: a test of the command.")] = False,
    rounds: Annotated[int, typer.Option(help="Rounds; each measures alone, then beside large requests.", min=1)] = 7,
    seconds: Annotated[float, typer.Option(help="Seconds of each half of a round.", min=0.5)] = 15.0,
    width: Annotated[int, typer.Option(help="Channels of the network.")] = 16,
) -> None:
    """Measure, write `fairness.json`, and print one line of JSON."""
    out.mkdir(parents=True, exist_ok=True)
    found = measure(out / "zoo", *((3, 4.0) if quick else (rounds, seconds)), width)
    document = {"ratio_median": median(one.ratio for one in found), "rounds": [asdict(one) for one in found]}
    (out / "fairness.json").write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"FAIRNESS {json.dumps(document)}\n")


def measure(folder: Path, rounds: int, seconds: float, width: int = 16) -> list[Round]:
    """Start a service on a new zoo and measure it.

    Args:
        folder: Data folder of the zoo.
        rounds: Number of rounds.
        seconds: Seconds of each half of a round.
        width: Channels of the network.
    """
    prepare(folder, width)
    with running_service(folder) as port:
        ask(port, image_bytes(), 1.0)  # warm up
        return [measure_round(port, seconds) for _ in range(rounds)]


def prepare(folder: Path, width: int) -> None:
    """Make a zoo with one deployment of a small network, unless the folder holds one."""
    if (folder / "zoo.db").exists():
        return
    torch.manual_seed(0)
    classes = tuple(f"class {number}" for number in range(10))
    spec = NetworkSpec(
        architecture="cnn",
        options={"width": width},
        classes=classes,
        input_size=IMAGE,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    network = build_network(spec).eval()
    zoo = open_zoo(Settings(data_dir=folder))
    migrate(zoo.database)
    with zoo.database.write() as session:
        models.create(session, name=NAME)
        upload_id = upload(session, zoo, safetensors.torch.save(network.state_dict()))
        models.add_version(session, NAME, upload_id=upload_id, spec=spec)
        lease = validation.claim_validation(session, "benchmark")
        assert lease is not None
        validation.accept_version(session, lease, fingerprint=fingerprint(network), parameters=0, macs=0)
        deployments.put(session, NAME, NAME)
    zoo.close()


@contextmanager
def running_service(folder: Path, **settings: str) -> Iterator[int]:
    """Run the API and the serving process on a zoo; yields the API's port."""
    api, serving = _free_port(), _free_port()
    urls = [f"http://127.0.0.1:{port}" for port in (serving, api)]
    environment = {**os.environ, "PNC_THREADS": "1", "PNC_PAGES": "false", "PNC_SERVING_URL": urls[0], **settings}
    commands = [[sys.executable, "-m", "app.cli", role, "--port", str(port), "--data-dir", str(folder)]
                for role, port in (("serve", serving), ("api", api))]  # fmt: skip
    processes = [subprocess.Popen(command, env=environment) for command in commands]
    try:
        deadline = time.monotonic() + START_SECONDS
        while not all(_is_ready(url) for url in urls):
            if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
                raise RuntimeError("expected API and serving to become ready, got no answer; see the messages above")
            time.sleep(0.1)
        yield api
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def _is_ready(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    return False


def image_bytes() -> bytes:
    """The pixels of one random image."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, IMAGE, generator=generator, dtype=torch.uint8).numpy().tobytes()


def ask(port: int, body: bytes, seconds: float, is_enough: Callable[[], bool] = lambda: True) -> list[float]:
    """Send the body repeatedly.

    Args:
        port: Of the API.
        body: Raw tensor of a request.
        seconds: Duration.
        is_enough: Asked after that time; the requests go on until it returns True, for LONGEST_SECONDS at most.

    Returns:
        The latency of each response in seconds.
    """
    took: list[float] = []
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end or not (is_enough() or begun > end + LONGEST_SECONDS):
        connection.request("POST", f"/v2/models/{NAME}/infer", body, HEADERS)
        answer = connection.getresponse()
        answer.read()
        took.append(time.perf_counter() - begun)
        if answer.status != 200:
            raise RuntimeError(f"expected status 200, got {answer.status}")
    connection.close()
    return took


def measure_round(port: int, seconds: float) -> Round:
    """Measure one round: alone, then beside the client of large requests."""
    alone = ask(port, image_bytes(), seconds)
    context: Any = multiprocessing.get_context("spawn")
    stop, ended, begun = context.Event(), context.Value("i", 0), context.Event()
    other = context.Process(target=_send_large, args=(port, stop, begun, ended), daemon=True)
    other.start()
    begun.wait(60)
    time.sleep(0.5)
    started, before = time.perf_counter(), ended.value
    # A slow machine needs longer than `seconds` for one large request.
    beside = ask(port, image_bytes(), seconds, lambda: ended.value > before)
    large, took = ended.value - before, time.perf_counter() - started
    stop.set()
    other.join(60)
    if other.is_alive():
        other.kill()
    (a50, a99), (b50, b99) = median_and_p99(alone), median_and_p99(beside)
    return Round(a50, a99, b50, b99, min(len(alone), len(beside)), large, large * LARGE_IMAGES / took)


def median_and_p99(took: list[float]) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds, of latencies in seconds."""
    times = sorted(took)
    return 1000 * times[len(times) // 2], 1000 * times[min(len(times) - 1, int(0.99 * len(times)))]


def _send_large(port: int, stop: Event, begun: Event, ended: Any) -> None:
    """Send large requests until stopped; runs in a separate process."""
    body = image_bytes() * LARGE_IMAGES
    named = {"Host": "localhost", "Content-Length": str(len(body)), **HEADERS}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    head = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\n{lines}\r\n"
    asyncio.run(_send_all(port, head.encode() + body, stop, begun, ended))


async def _send_all(port: int, raw: bytes, stop: Event, begun: Event, ended: Any) -> None:
    async def send() -> None:
        while not stop.is_set():
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(raw)
                begun.set()
                answer = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"content-length: (\d+)", answer.lower())
                await reader.readexactly(int(found[1]) if found else 0)
                ended.value += 1
                writer.close()

    async def watch() -> None:
        while not stop.is_set():
            await asyncio.sleep(0.1)

    senders = [asyncio.create_task(send()) for _ in range(CONNECTIONS)]
    await watch()
    for sender in senders:
        sender.cancel()
    await asyncio.gather(*senders, return_exceptions=True)


if __name__ == "__main__":
    typer.run(main)
