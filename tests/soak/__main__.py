"""The command of the soak test; see the package."""

import argparse
import io
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app import demo
from pnc_client import Client
from tests.integration.conftest import Up, start_service, stop_service
from tests.soak.verdict import Memory, inconsistencies
from tests.soak.visitors import NAME, QUICK, Ground, Tally, png_images, visit_all

CACHE = "4000000"
"""PNC_MODULE_CACHE_BYTES: small, so that serving must evict modules."""


@dataclass(frozen=True)
class Soak:
    """Result of a soak test."""

    facts: dict[str, Any]
    complaints: list[str]
    """Unexpected responses, and inconsistencies at the end."""
    is_flat: bool

    @property
    def is_clean(self) -> bool:
        """Whether memory is flat, the target restored, and there are no complaints."""
        return self.is_flat and not self.complaints and bool(self.facts["target_restored"])


def soak(folder: Path, minutes: float, seed: int, console: Console) -> Soak:
    """Start a service, run visitors for some time, stop the service, and check its data.

    Args:
        folder: Empty folder for the service's data and the visitors' files.
        minutes: Duration of the visits.
        seed: Seed of the visitors' random choices.
        console: Shows the progress.
    """
    torch.set_num_threads(1)
    service = start_service(folder / "data", PNC_LOG_LEVEL="warning", PNC_MODULE_CACHE_BYTES=CACHE)
    try:
        ground = _prepared(service, folder, seed)
        tally, memory = Tally(), Memory(_processes(service))
        with Client(service.url) as client:
            tally.keep(_first_module(client, ground))
            before = _fingerprint(client, ground)
            with Progress(
                TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
            ) as progress:
                task = progress.add_task("soaking", total=60 * minutes)

                def tick(seconds: float) -> None:
                    memory.sample()
                    progress.update(task, completed=seconds, description=f"{sum(tally.done.values())} visits")

                visit_all(ground, tally, 60 * minutes, seed, tick)
            client.deployments.set_modules(NAME, [])
            client.deployments.wait(NAME)
            restored = _fingerprint(client, ground) == before
    finally:
        code = stop_service(service)
    complaints = [*tally.unexpected, *inconsistencies(folder / "data")]
    if code:
        complaints.append(f"expected the service to end with 0, got {code}")
    facts = {
        "minutes": minutes,
        **dict(sorted(tally.done.items())),
        "unexpected": len(tally.unexpected),
        "inconsistent": len(complaints) - len(tally.unexpected),
        "memory_mb": memory.grown(),
        "memory_flat": memory.is_flat,
        "target_restored": restored,
    }
    return Soak(facts, complaints, memory.is_flat)


def _prepared(service: Up, folder: Path, seed: int) -> Ground:
    quiet = Console(file=io.StringIO())
    material = demo.prepare(seed, quiet)
    with Client(service.url) as client:
        dataset = demo.register(client, material, folder, quiet)
        client.deployments.create(NAME, "digits-low")
        client.deployments.wait(NAME)
    return Ground(service.url, dataset.id, folder, png_images(material))


def _first_module(client: Client, ground: Ground) -> str:
    job = client.jobs.wait(client.jobs.create("digits-low", "digits-high", ground.dataset, QUICK).id)
    if job.module is None:
        raise SystemExit(f"the first job ended {job.state}: {job.problem}")
    return job.module


def _fingerprint(client: Client, ground: Ground) -> str:
    """Fingerprint of the served target; the serving process computes it again for each revision."""
    return client.deployments.predict(NAME, ground.images[0]).target_fingerprint


def _processes(service: Up) -> dict[str, psutil.Process]:
    """The service's long-running processes, by name."""
    found = {"up": psutil.Process(service.process.pid)}
    for name, module in {"api": "app.api", "serving": "app.serving", "worker": "workers.embedded"}.items():
        found[name] = service.child(module)
    return found


def main() -> None:
    """Entry point of the command; the last line is `SOAK ` and one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="pnc-soak-") as folder:
        found = soak(Path(folder), given.minutes, given.seed, console)
    for complaint in found.complaints:
        console.print(complaint, markup=False)
    sys.stdout.write(f"SOAK {json.dumps(found.facts)}\n")
    sys.exit(0 if found.is_clean else 1)


if __name__ == "__main__":
    main()
