"""Compare the engines of serving: torch, ONNX Runtime, and ONNX Runtime in a bare loop, which is the limit.

    python -m benchmarks.engines --architecture cifar/resnet20 --size 32

All run in this process, in alternating rounds, on one thread and the same network with random weights. Each client
sends one uint8 image at a time. The bare loop runs batches of 1 and of 8 preprocessed images.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Annotated

import safetensors.torch
import torch
import typer

from app.serving.engine.engine import Engine, Limits
from app.serving.engine.exporter import Exporter, StoredFile
from app.serving.engine.modes import Mode
from app.serving.engine.parts import Reads
from app.serving.engine.program_files import ProgramFiles
from app.serving.engine.programs import Program, Trunk, put_together
from app.serving.engine.sessions import Session
from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.module.composed import without_modules

CONNECTIONS = (1, 8, 16)
BATCHES = (1, 8)
EXPORT_SECONDS = 300.0


def main(
    architecture: Annotated[str, typer.Option(help="Architecture of the network.")] = "cifar/resnet20",
    size: Annotated[int, typer.Option(help="Height and width of the images.")] = 32,
    rounds: Annotated[int, typer.Option(help="Rounds of all engines.", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Seconds of every measurement.", min=0.1)] = 2.0,
) -> None:
    """Measure and print one JSON object: images a second and processor time an image, medians of all rounds."""
    torch.set_num_threads(1)
    sys.setswitchinterval(50e-6)  # as in the serving process
    torch.manual_seed(0)
    spec = NetworkSpec(
        architecture=architecture,
        classes=tuple(map(str, range(10))),
        input_size=(3, size, size),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    with tempfile.TemporaryDirectory() as folder:
        programs, exported = _programs(spec, Path(folder))
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        measurements = _measurements(spec, programs, exported, seconds)
        for name in sorted(measurements, reverse=number % 2 == 1):
            found.setdefault(name, []).append(measurements[name]())
    document = {name: {key: median(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}
    sys.stdout.write(f"ENGINES {json.dumps(document)}\n")


def _programs(spec: NetworkSpec, folder: Path) -> tuple[dict[str, Program], Session]:
    """The target for each engine, and the session of ONNX Runtime."""
    network = build_network(spec).eval().requires_grad_(False)
    weights = folder / "weights.safetensors"
    safetensors.torch.save_file(network.state_dict(), weights)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    file = StoredFile(sha256(weights.read_bytes()).hexdigest(), lambda: nullcontext(weights))
    exporter = Exporter(ProgramFiles(folder / "programs", 2**31))
    target = without_modules(network, spec)
    trunks = {"torch": Trunk(target, Mode()), "onnxruntime": Trunk(target, Mode(exporter=exporter), file=file)}
    programs = {name: put_together(trunk, []) for name, trunk in trunks.items()}
    programs["onnxruntime"].ask_for_programs()
    begun = time.perf_counter()
    if not exporter.settled(EXPORT_SECONDS):
        raise SystemExit(f"export: expected a program within {EXPORT_SECONDS:g} s, got none")
    sys.stderr.write(f"export: {time.perf_counter() - begun:.1f} s\n")
    exporter.close()
    ready = trunks["onnxruntime"].program(Reads())
    if ready is None:
        raise SystemExit("export: expected a program, got none; the log has the reason")
    return programs, ready


def _measurements(
    spec: NetworkSpec, programs: dict[str, Program], session: Session, seconds: float
) -> dict[str, Callable[[], dict[str, float]]]:
    bare = {f"bare {batch}": _Bare(session, torch.randn(batch, *spec.input_size), seconds) for batch in BATCHES}
    pixels = torch.randint(0, 256, (1, *spec.input_size), dtype=torch.uint8)
    asked = {
        f"{name} {connections}": _Asked(program, pixels, connections, seconds)
        for name, program in programs.items()
        for connections in CONNECTIONS
    }
    return {**bare, **asked}


class _Bare:
    """A loop of one batch."""

    def __init__(self, session: Session, images: torch.Tensor, seconds: float) -> None:
        self._session, self._images, self._seconds = session, images, seconds

    def __call__(self) -> dict[str, float]:
        count, begun, used = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - begun < self._seconds:
            self._session(self._images)
            count += len(self._images)
        return _row(count, time.perf_counter() - begun, time.process_time() - used)


class _Asked:
    """Clients that ask an engine."""

    def __init__(self, program: Program, pixels: torch.Tensor, connections: int, seconds: float) -> None:
        self._program, self._pixels, self._connections, self._seconds = program, pixels, connections, seconds

    def __call__(self) -> dict[str, float]:
        return asyncio.run(self._run())

    async def _run(self) -> dict[str, float]:
        engine = Engine(Limits(batch=BATCHES[-1], wait=0.001))
        engine.start()
        await asyncio.gather(*(self._client(engine, 0.2) for _ in range(self._connections)))
        begun, used = time.perf_counter(), time.process_time()
        counts = await asyncio.gather(*(self._client(engine, self._seconds) for _ in range(self._connections)))
        row = _row(sum(counts), time.perf_counter() - begun, time.process_time() - used)
        await asyncio.to_thread(engine.close)
        return row

    async def _client(self, engine: Engine, seconds: float) -> int:
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            await engine.ask(self._program, self._pixels, 60.0)
            count += 1
        return count


def _row(images: int, seconds: float, processor: float) -> dict[str, float]:
    return {"images_per_second": images / seconds, "processor_ms_per_image": 1000 * processor / images}


if __name__ == "__main__":
    typer.run(main)
