"""The measured servers: how to install, start, call and stop each."""

import os
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import torch

from benchmarks.service.prepared_zoos import NAME

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
INSTALLED = {
    "naive": ["fastapi", "uvicorn[standard]"],
    "litserve": ["litserve", "python-multipart"],
    "mlserver": ["mlserver"],
}


@dataclass(frozen=True)
class System:
    """A measured server, and the requests it takes."""

    system: str
    mode: str
    environment: str
    """Name of its virtual environment; `own` is the environment of this process."""
    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    path: str
    health: str
    payload: str
    modules: int = 0


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


def environment(out: Path, name: str) -> Path:
    """Make a virtual environment with a peer's packages and this environment's torch, so that all have one version."""
    folder = out / "environments" / name
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *INSTALLED[name]], check=True)
        ours = Path(torch.__file__).parents[1]
        theirs = next((folder / "lib").glob("python*/site-packages"))
        (theirs / "zz-ours.pth").write_text(f"{ours}\n{PROJECT}\n{HERE / 'peers'}\n")
        (folder / "done").touch()
    return python


@contextmanager
def started(out: Path, system: System, threads: int) -> Iterator[tuple[psutil.Process, int]]:
    """Start a server; yields its process and port. The server and its children are stopped at the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = system.environment == "own"
    python = sys.executable if own else str(environment(out, system.environment))
    command = [python, *(part.format(port=port, folder=out.resolve()) for part in system.command)]
    variables = {
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
        server = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}{system.health}", server)
            process = psutil.Process(server.pid)
            _wait_until_idle(process)
            yield process, port
        finally:  # signal the group: LitServe's workers outlive a parent that is terminated alone
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _wait_until_ready(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(
                f"{url}: expected a running server, got one that exited with {server.returncode}; see its log"
            )
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"{url}: expected status 200 within 120 s, got none; see the server's log")


def _wait_until_idle(process: psutil.Process) -> None:
    """Wait until a server has finished its work at startup."""
    for _ in range(40):
        before = cpu_seconds(process)
        time.sleep(0.5)
        if cpu_seconds(process) - before < 0.25:
            return


def cpu_seconds(process: psutil.Process) -> float:
    """Processor seconds that a server and all its children have used."""
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system
    return total
