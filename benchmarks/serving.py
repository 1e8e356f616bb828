"""Compare our serving process with other servers: the same network and image, in alternating rounds on one machine.

    python -m benchmarks.serving --out results            # --quick for a short test

Peers: a simple FastAPI server, LitServe (single images, batches, fast queue) and MLServer, each installed into
its own virtual environment under the folder. In every round each system is started, warmed up and loaded over
16 connections, with one image per request. Only ratios within a round are compared, because the load of the
machine changes between rounds. Then our process is measured with 0, 1 and 3 modules, and while modules are
attached and detached under load.
"""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import httpx
import orjson
import psutil
import torch
import typer
from rich.console import Console
from rich.progress import track

from app.deployments import desired
from app.settings import Settings
from app.zoo import open_zoo
from benchmarks.reports.rows import write_rows
from benchmarks.reports.tables import markdown
from benchmarks.service.load_generator import LoadResult, Request, run
from benchmarks.service.prepared_zoos import IMAGE, NAME, SOURCES, prepare
from benchmarks.service.servers import OWN, SYSTEMS, System, cpu_seconds, environment, started

CONNECTIONS = 16


@dataclass(frozen=True)
class Row:
    """Result of one system in one round."""

    system: str
    mode: str
    modules: int
    round: int
    rps: float
    rps_per_cpu_second: float
    p50_ms: float
    p99_ms: float
    errors: int


def main(
    out: Annotated[Path, typer.Option(help="Folder for results.json, serving.md and the environments.")],
    quick: Annotated[
        bool, typer.Option(help="Two short rounds: a test of the command, with imprecise results.")
    ] = False,
    rounds: Annotated[int, typer.Option(help="Rounds; 0: only measure attaching and detaching.", min=0)] = 5,
    seconds: Annotated[float, typer.Option(help="Seconds of every measurement.", min=0.5)] = 6.0,
    threads: Annotated[int, typer.Option(help="Processor threads of every server.")] = 1,
    only: Annotated[str, typer.Option(help="Names of systems, a list.")] = "fastapi,litserve,mlserver,pnc",
) -> None:
    """Measure and write a report."""
    rounds, seconds = (2, 1.5) if quick else (rounds, seconds)
    chosen = [system for system in SYSTEMS if system.system in only.split(",")]
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    cost = prepare(out)
    for name in {system.environment for system in chosen} - {"own"}:
        console.print(f"environment of {name}")
        environment(out, name)
    rows: list[Row] = []
    order = [(number, system) for number in range(rounds) for system in (*chosen, *OWN[1:])]
    for number, system in track(order, "measuring", console=console):
        with started(out, system, threads) as (process, port):
            row = measure_system(system, number, process, port, seconds)
        rows.append(row)
        write_rows(out / "results.json", rows)
        console.print(
            f"{number} {row.system:<9} {row.mode:<28} {row.modules} modules  {row.rps:7.0f}/s  p99 {row.p99_ms:.1f} ms"
        )
    swaps = [measure_swaps(out, threads, 20 if quick else 500, connections) for connections in (0, 8)]
    (out / "swaps.json").write_text(json.dumps(swaps, indent=1) + "\n")
    console.print(f"report: {report(rows, swaps, cost, out)}")


def request_of(system: System, port: int) -> Request:
    """A request with the same image for every system, in the system's payload format."""
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


def measure_system(system: System, number: int, process: psutil.Process, port: int, seconds: float) -> Row:
    """Load one running system and measure it."""
    before, began = cpu_seconds(process), time.perf_counter()
    load: LoadResult = run(request_of(system, port), CONNECTIONS, seconds)
    spent = (cpu_seconds(process) - before) * load.seconds / (time.perf_counter() - began)
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


def measure_swaps(out: Path, threads: int, swaps: int, connections: int) -> dict[str, Any]:
    """Time attach and detach through the protocol while `connections` connections send requests.

    Each call returns after the change is served.
    """
    system = replace(OWN[0], command=(*OWN[0].command[:-1], "{folder}/zoo-0"))
    took: dict[str, list[float]] = {"load": [], "unload": []}
    with started(out, system, threads) as (_, port):
        stop = threading.Event()
        loads: list[LoadResult] = []

        def send_requests() -> None:
            while connections and not stop.is_set():
                loads.append(run(request_of(system, port), connections, 2.0))

        zoo = open_zoo(Settings(data_dir=out / "zoo-0"))
        with zoo.database.read() as session:
            wanted = next(d for d in desired.deployments(session) if d.name == NAME)
            modules = list(desired.attachable(session, wanted, SOURCES))
            names = [f"{NAME}+{module.id}" for module in modules]
            size = mean(zoo.store.size(module.key) or 0 for module in modules)
        zoo.close()
        thread = threading.Thread(target=send_requests)
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
        "connections": connections,
        "bundle_bytes": size,
        "answers": sum(load.answers for load in loads),
        "errors": sum(load.errors for load in loads),
        "attach_ms": 1000 * mean(took["load"]),
        "attach_p95_ms": 1000 * late["load"],
        "detach_ms": 1000 * mean(took["unload"]),
        "detach_p95_ms": 1000 * late["unload"],
        "same_target": before == after,
    }


def report(rows: Sequence[Row], swaps: Sequence[dict[str, Any]], cost: dict[int, float], out: Path) -> Path:
    """Write `serving.md`: every system, the ratios within rounds, and the cost of modules."""
    records = [{**asdict(row), "of_litserve": _ratio(rows, row)} for row in rows]
    numbers = ("rps", "of_litserve", "rps_per_cpu_second", "p50_ms", "p99_ms", "errors")
    parts = [markdown(records, ("system", "mode", "modules"), (), numbers).replace("splits", "rounds")]
    for modules in sorted({row.modules for row in rows} - {0}):
        slower = [_slower(rows, number, modules) for number in sorted({row.round for row in rows})]
        parts.append(
            f"{modules} modules attached: time of a request {mean(slower):.2f} times that without modules, "
            f"multiply-accumulates {cost[modules]:.2f} times."
        )
    parts += [f"Swaps while {swap['connections']} connections send requests: " + json.dumps(swap) for swap in swaps]
    path = out / "serving.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


def _ratio(rows: Sequence[Row], row: Row) -> float:
    """Requests per second, divided by those of LitServe's best mode with the same kind of payload in the same round."""
    same = [other for other in rows if other.round == row.round and _is_binary(other) == _is_binary(row)]
    best = [other.rps for other in same if other.system == "litserve"]
    return row.rps / max(best) if best else float("nan")


def _is_binary(row: Row) -> bool:
    return "binary" in row.mode


def _slower(rows: Sequence[Row], number: int, modules: int) -> float:
    same = {r.modules: r.rps for r in rows if (r.system, r.mode, r.round) == ("pnc", "oip binary", number)}
    return same[0] / same[modules]


if __name__ == "__main__":
    typer.run(main)
