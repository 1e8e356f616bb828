"""Our serving process beside others: the same network and image, in interleaved rounds on one machine.

    python -m benchmarks.serving --out results            # add --quick for a look

Peers: FastAPI as one would write it first, LitServe (without batches, with batches, with its fast queue)
and MLServer, each installed into a virtual environment of its own under the folder. In every round each
system is started, warmed up and kept busy over 16 connections, one image a request; what counts is the
ratio inside a round, because machines are busy with other things, too. Then ours with 0, 1 and 3 modules
attached, and modules going in and out under load.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import httpx
import orjson
import psutil
import safetensors.torch
import torch
import typer
from rich.console import Console
from rich.progress import track

from app.zoo import datasets, deployments, jobs, models, runs, uploads, validation
from app.zoo.db import migrate
from app.zoo.jobs import JobRequest
from app.zoo.settings import Settings
from app.zoo.zoo import Zoo, open_zoo
from benchmarks.load import Load, Request, run
from benchmarks.paper import write_rows
from benchmarks.report import markdown
from pnc_core.bundle import Bundle
from pnc_core.cloning import clone
from pnc_core.composed import attach
from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.data import ImageSet
from pnc_core.evaluation import multiply_accumulates
from pnc_core.identity import fingerprint
from pnc_core.networks import build_network

HERE = Path(__file__).parent
CONNECTIONS, IMAGE = 16, (3, 32, 32)
NAME, SOURCES = "target", 3
INSTALLED = {
    "naive": ["fastapi", "uvicorn[standard]"],
    "litserve": ["litserve", "python-multipart"],
    "mlserver": ["mlserver"],
}


@dataclass(frozen=True)
class System:
    """A server to be measured, and how it is asked."""

    system: str
    mode: str
    environment: str
    """Whose virtual environment; `own` is the one that this runs in."""
    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    path: str
    health: str
    payload: str
    modules: int = 0


@dataclass(frozen=True)
class Row:
    """One system in one round."""

    system: str
    mode: str
    modules: int
    round: int
    rps: float
    rps_per_cpu_second: float
    p50_ms: float
    p99_ms: float
    errors: int


_MLSERVER = "from mlserver.cli import main; main()"


def _lit(mode: str, payload: str, batch: int, fast: int) -> System:
    variables = (("PAYLOAD", payload), ("BATCH", str(batch)), ("FAST", str(fast)))
    return System(
        "litserve", mode, "litserve", (str(HERE / "peers/lit.py"),), variables, "/predict", "/health", payload
    )


def _ours(mode: str, payload: str, modules: int = 0) -> System:
    command = ("-m", "app.cli", "serve", "--port", "{port}", "--data-dir", f"{{folder}}/zoo-{modules}")
    return System("pnc", mode, "own", command, (), f"/v2/models/{NAME}/infer", "/readyz", payload, modules)


SYSTEMS = (
    System("fastapi", "json", "naive", (str(HERE / "peers/naive.py"),), (), "/predict", "/health", "json"),
    _lit("json", "json", 1, 0),
    _lit("json, batch 8", "json", 8, 0),
    _lit("json, batch 8, fast queue", "json", 8, 1),
    _lit("binary, batch 8", "binary", 8, 0),
    _lit("binary, batch 8, fast queue", "binary", 8, 1),
    System(
        "mlserver", "oip json", "mlserver", ("-c", _MLSERVER, "start", "{folder}/mlserver"), (),
        f"/v2/models/{NAME}/infer", f"/v2/models/{NAME}/ready", "oip",
    ),
    _ours("oip json", "oip"),
    _ours("oip binary", "raw"),
)  # fmt: skip
OWN = tuple(_ours("oip binary", "raw", modules) for modules in (0, 1, 3))


def main(
    out: Annotated[Path, typer.Option(help="Folder for results.json, serving.md and the environments.")],
    quick: Annotated[bool, typer.Option(help="Two short rounds: shows that it works, measures little.")] = False,
    rounds: Annotated[int, typer.Option(help="How often every system is measured.", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Of every measurement.", min=0.5)] = 6.0,
    threads: Annotated[int, typer.Option(help="Processor threads of every network.")] = 1,
    only: Annotated[str, typer.Option(help="Systems, by name.")] = "fastapi,litserve,mlserver,pnc",
) -> None:
    """Measure and write a report."""
    rounds, seconds = (2, 1.5) if quick else (rounds, seconds)
    chosen = [system for system in SYSTEMS if system.system in only.split(",")]
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    cost = prepare(out)
    for environment in {system.environment for system in chosen} - {"own"}:
        console.print(f"environment of {environment}")
        _environment(out, environment)
    rows: list[Row] = []
    order = [(number, system) for number in range(rounds) for system in (*chosen, *OWN[1:])]
    for number, system in track(order, "measuring", console=console):
        with started(out, system, threads) as (process, port):
            row = measured(system, number, process, port, seconds)
        rows.append(row)
        write_rows(out / "results.json", rows)
        console.print(
            f"{number} {row.system:<9} {row.mode:<28} {row.modules} modules  {row.rps:7.0f}/s  p99 {row.p99_ms:.1f} ms"
        )
    swap = swapped(out, threads, swaps=20 if quick else 500)
    (out / "swap.json").write_text(json.dumps(swap, indent=1) + "\n")
    console.print(f"report: {report(rows, swap, cost, out)}")


# What is served


def prepare(out: Path) -> dict[int, float]:
    """The network for the peers, and zoos of our own with 0, 1 and 3 modules attached.

    Returns:
        Multiply-accumulates with so many modules, over those of the target.
    """
    torch.set_num_threads(1)
    classes = [f"class {number}" for number in range(10 + 2 * SOURCES)]
    target, spec = _network(tuple(classes[:10]), 0)
    (out / "model").mkdir(exist_ok=True)
    safetensors.torch.save_file(target.state_dict(), out / "model" / "target.safetensors")
    (out / "model" / "spec.json").write_text(json.dumps(asdict(spec)))
    (out / "mlserver").mkdir(exist_ok=True)
    settings = {"name": NAME, "implementation": "mls.Network"}
    (out / "mlserver" / "model-settings.json").write_text(json.dumps(settings))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (160, *IMAGE), generator=generator, dtype=torch.uint8)
    sources, bundles = [], []
    for number in range(SOURCES):
        mine = tuple(classes[10 + 2 * number : 12 + 2 * number])
        source = _network(mine, 1 + number)
        images = ImageSet(noise, torch.arange(len(noise)) % 12, (*classes[:10], *mine))
        here = Position(target="layer2.0", source="layer2.0")
        config = CloneConfig(classes=mine, preset="fast", position=here, views=1, tap_grid=1)
        sources.append(source)
        bundles.append(clone((target, spec), source, images, config))
    cost, composed = {0: 1.0}, target
    for number, bundle in enumerate(bundles, 1):
        composed = attach(composed, bundle)
        cost[number] = multiply_accumulates(composed, spec) / multiply_accumulates(target, spec)
    for modules in (0, 1, SOURCES):
        _fill(out / f"zoo-{modules}", (target, spec), sources, bundles, modules)
    return cost


def _network(classes: tuple[str, ...], seed: int) -> tuple[torch.nn.Module, NetworkSpec]:
    torch.manual_seed(seed)
    spec = NetworkSpec(architecture="resnet20", classes=classes, input_size=IMAGE, mean=(0.5,) * 3, std=(0.25,) * 3)
    return build_network(spec).requires_grad_(False), spec


def _fill(
    folder: Path,
    target: tuple[torch.nn.Module, NetworkSpec],
    sources: Sequence[tuple[torch.nn.Module, NetworkSpec]],
    bundles: Sequence[Bundle],
    attached: int,
) -> None:
    if (folder / "zoo.db").exists():
        return
    zoo = open_zoo(Settings(data_dir=folder))
    migrate(zoo.database)
    with zoo.database.write() as session:
        for name, (network, spec) in ((NAME, target), *((f"source-{i}", s) for i, s in enumerate(sources))):
            models.create(session, name=name)
            upload = _uploaded(session, zoo, safetensors.torch.save(network.state_dict()))
            models.add_version(session, name, upload_id=upload, spec=spec)
            lease = validation.claim_validation(session, "benchmark")
            assert lease is not None
            validation.accept_version(session, lease, fingerprint=fingerprint(network), parameters=0, macs=0)
        deployments.put(session, NAME, NAME)
        for number, bundle in enumerate(bundles):
            module = _module(session, zoo, number, bundle)
            if number < attached:
                deployments.attach(session, NAME, module)
    zoo.close()


def _uploaded(session: Any, zoo: Zoo, content: bytes) -> str:
    draft = uploads.draft(bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), limit=10**9)
    row = uploads.declare(session, draft)
    return uploads.complete(session, row.id, zoo.store.put([content])).id


def _module(session: Any, zoo: Zoo, number: int, bundle: Bundle) -> str:
    """The rows that a job would have left."""
    every = (*bundle.manifest.target.classes, *bundle.manifest.classes)
    contents = datasets.Contents(rows=10 * len(every), classes=every, counts=dict.fromkeys(every, 10))
    data = datasets.register(
        session, name=f"noise-{number}", upload_id=_uploaded(session, zoo, f"{number}".encode()), contents=contents
    )
    config = CloneConfig(classes=bundle.manifest.classes)
    jobs.submit(session, JobRequest(target=NAME, source=f"source-{number}", dataset=data.id, config=config))
    lease = runs.claim(session, "benchmark")
    assert lease is not None
    stored = [(p, zoo.store.put([bundle.payload(p).to_bytes()])) for p in ("thin", "full")]
    files = [(payload, one.digest, one.bytes) for payload, one in stored]
    return runs.succeed(session, lease, manifest=asdict(bundle.manifest), bundles=files).id


# Servers


def _environment(out: Path, name: str) -> Path:
    """A virtual environment with a peer's own packages; torch is seen from ours, so that it is the same."""
    folder = out / "environments" / name
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *INSTALLED[name]], check=True)
        ours = Path(torch.__file__).parents[1]
        theirs = next((folder / "lib").glob("python*/site-packages"))
        (theirs / "zz-ours.pth").write_text(f"{ours}\n{HERE.parent}\n{HERE / 'peers'}\n")
        (folder / "done").touch()
    return python


@contextmanager
def started(out: Path, system: System, threads: int) -> Iterator[tuple[psutil.Process, int]]:
    """A server that answers, and its port; it and its children end with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = system.environment == "own"
    python = sys.executable if own else str(_environment(out, system.environment))
    command = [python, *(part.format(port=port, folder=out.resolve()) for part in system.command)]
    environment = {
        **os.environ,
        **dict(system.variables),
        "PORT": str(port),
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(port + 1),
        "MLSERVER_METRICS_PORT": str(port + 2),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MODEL": str((out / "model").resolve()),
        "THREADS": str(threads),
        "PNC_THREADS": str(threads),
        "PNC_LOG_LEVEL": "warning",
        "OMP_NUM_THREADS": str(threads),
    }
    with (out / f"{system.system}.log").open("ab") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _await(f"http://127.0.0.1:{port}{system.health}", server)
            process = psutil.Process(server.pid)
            _calm(process)
            yield process, port
        finally:  # LitServe leaves its workers behind when only the parent is told
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _await(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"{url}: expected a server, got one that ended with {server.returncode}; see its log")
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"{url}: expected an answer within 120 s, got none; see its log")


def _calm(process: psutil.Process) -> None:
    """Wait until a server has done what it does ahead of being asked."""
    for _ in range(40):
        before = _cpu(process)
        time.sleep(0.5)
        if _cpu(process) - before < 0.25:
            return


# Measuring


def asking(system: System, port: int) -> Request:
    """The request of a system: the same image, as it wants it."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (1, *IMAGE), generator=generator, dtype=torch.uint8)
    raw = image.numpy().tobytes()
    if system.payload == "raw":
        headers = {"Inference_Header_Content_Length": "0", "Content_Type": "application/octet-stream"}
        return Request.post(port, system.path, raw, **headers)
    if system.payload == "binary":
        head = b'--cut\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        return Request.post(
            port, system.path, head + raw + b"\r\n--cut--\r\n", Content_Type="multipart/form-data; boundary=cut"
        )
    if system.payload == "json":
        return Request.post(
            port, system.path, orjson.dumps({"images": image.tolist()}), Content_Type="application/json"
        )
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, *IMAGE], "data": image.flatten().tolist()}
    return Request.post(port, system.path, orjson.dumps({"inputs": [tensor]}), Content_Type="application/json")


def measured(system: System, number: int, process: psutil.Process, port: int, seconds: float) -> Row:
    """One system kept busy."""
    before, began = _cpu(process), time.perf_counter()
    load: Load = run(asking(system, port), CONNECTIONS, seconds)
    spent = (_cpu(process) - before) * load.seconds / (time.perf_counter() - began)
    return Row(
        system=system.system,
        mode=system.mode,
        modules=system.modules,
        round=number,
        rps=load.rate,
        rps_per_cpu_second=load.answers / spent if spent > 0 else 0.0,
        p50_ms=1000 * load.p50,
        p99_ms=1000 * load.p99,
        errors=load.errors,
    )


def _cpu(process: psutil.Process) -> float:
    """Processor seconds of a server and all its children."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def swapped(out: Path, threads: int, swaps: int) -> dict[str, Any]:
    """Attach and detach through the protocol while 8 connections ask."""
    system = replace(OWN[0], command=(*OWN[0].command[:-1], "{folder}/zoo-0"))
    took: dict[str, list[float]] = {"load": [], "unload": []}
    with started(out, system, threads) as (_, port):
        stop = threading.Event()
        loads: list[Load] = []

        def ask() -> None:
            while not stop.is_set():
                loads.append(run(asking(system, port), 8, 2.0))

        zoo = open_zoo(Settings(data_dir=out / "zoo-0"))
        with zoo.database.read() as session:
            wanted = next(d for d in deployments.desired(session) if d.name == NAME)
            names = [f"{NAME}+{module.id}" for module in deployments.attachable(session, wanted, SOURCES)]
        zoo.close()
        thread = threading.Thread(target=ask)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            before = client.get(f"/v2/models/{NAME}").json()["parameters"]["target_fingerprint"]
            thread.start()
            for number in range(swaps):
                verb = "load" if number // SOURCES % 2 == 0 else "unload"
                begun = time.perf_counter()
                answer = client.post(f"/v2/repository/models/{names[number % SOURCES]}/{verb}")
                took[verb].append(time.perf_counter() - begun)
                answer.raise_for_status()
            stop.set()
            thread.join()
            for name in names:
                client.post(f"/v2/repository/models/{name}/unload").raise_for_status()
            after = client.get(f"/v2/models/{NAME}").json()["parameters"]["target_fingerprint"]
    late = {verb: sorted(times)[int(0.95 * len(times))] for verb, times in took.items()}
    return {
        "swaps": swaps,
        "answers": sum(load.answers for load in loads),
        "errors": sum(load.errors for load in loads),
        "attach_ms": 1000 * mean(took["load"]),
        "attach_p95_ms": 1000 * late["load"],
        "detach_ms": 1000 * mean(took["unload"]),
        "detach_p95_ms": 1000 * late["unload"],
        "same_target": before == after,
    }


def report(rows: Sequence[Row], swap: dict[str, Any], cost: dict[int, float], out: Path) -> Path:
    """Write `serving.md`: every system, the ratios inside rounds, and what modules cost."""
    records = [{**asdict(row), "of_litserve": _ratio(rows, row)} for row in rows]
    numbers = ("rps", "of_litserve", "rps_per_cpu_second", "p50_ms", "p99_ms", "errors")
    parts = [markdown(records, ("system", "mode", "modules"), (), numbers).replace("splits", "rounds")]
    for modules in sorted({row.modules for row in rows} - {0}):
        slower = [_slower(rows, number, modules) for number in sorted({row.round for row in rows})]
        parts.append(
            f"{modules} modules attached: time of a request {mean(slower):.2f} times that without, "
            f"multiply-accumulates {cost[modules]:.2f} times."
        )
    parts.append("Swaps under load: " + json.dumps(swap))
    path = out / "serving.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


def _ratio(rows: Sequence[Row], row: Row) -> float:
    """Requests a second over LitServe's best mode in the same round."""
    best = [other.rps for other in rows if other.system == "litserve" and other.round == row.round]
    return row.rps / max(best) if best else float("nan")


def _slower(rows: Sequence[Row], number: int, modules: int) -> float:
    same = {r.modules: r.rps for r in rows if (r.system, r.mode, r.round) == ("pnc", "oip binary", number)}
    return same[0] / same[modules]


if __name__ == "__main__":
    typer.run(main)
