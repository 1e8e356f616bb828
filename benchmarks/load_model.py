"""Load of the database, Redis and the store by many workers, replicas and modules, from measured costs.

    env $(python -m tests.services up postgres) python -m benchmarks.load_model --out results/load

fills an empty PostgreSQL, runs each periodic piece of work of the service many times, and measures its statements and
the processor time of PostgreSQL's process. The demand of a cluster is the sum of these costs times their frequency.
PostgreSQL must run on this machine.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import psutil
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from app.db import engine
from app.db.leases import Lease
from app.settings import Settings
from app.zoo import Zoo, open_zoo
from benchmarks.load import rows
from benchmarks.load.acts import ACTS, JOB_SECONDS, Act, Way, intervals, prepare, run
from benchmarks.service.statements import StatementCount

CAPACITIES = {
    "database processors": 5.6,
    "database connections": 2500.0,
    "database commits/s": 3000.0,
    "Redis commands/s": 50_000.0,
    "Redis connections": 10_000.0,
    "store puts/s": 3500.0,
}
"""Assumed capacity of each part: eight processors at 70 %, 32 GB for connections, commits of an SSD with group commit,
one Redis with its default `maxclients`, and the puts that S3 documents for one prefix."""
LOOPS, CELERY = 5, 2
"""Connections of a worker: of its loops, to PostgreSQL before decision 172 and to Redis since; and Celery's own."""
STORE_OBJECTS = 2
"""Objects that a job puts besides its checkpoints."""


@dataclass(frozen=True)
class Cost:
    """Measured cost of one act."""

    name: str
    statements: int
    writes: bool
    milliseconds: float
    """Processor time of the database."""
    latency: float
    """Milliseconds until the answer, in this process."""
    per_million: float = 0.0
    """Milliseconds of the database for each million of modules."""

    def at(self, modules: int) -> float:
        """Milliseconds of the database in a zoo with this number of modules."""
        return self.milliseconds + self.per_million * modules / 1e6


@dataclass(frozen=True)
class Cluster:
    """Numbers of processes."""

    workers: float
    replicas: float
    modules: int
    apis: float = 4
    busy: float = 0.8
    """Share of the workers that run a job."""

    def count(self, process: str) -> float:
        """Number of processes of a kind."""
        counts = {"cluster": 1.0, "worker": self.workers, "busy worker": self.busy * self.workers}
        return {**counts, "replica": self.replicas, "API": self.apis}[process]

    def scaled(self, factor: float) -> "Cluster":
        """A cluster with other numbers of workers and replicas, and the same modules."""
        return Cluster(self.workers * factor, self.replicas * factor, self.modules, self.apis, self.busy)


def main(
    out: Annotated[Path, typer.Option(help="Folder for load.json.")],
    sizes: Annotated[str, typer.Option(help="Numbers of modules of the two measurements.")] = "5000,50000",
    rounds: Annotated[int, typer.Option(min=2, help="Runs of each act.")] = 200,
    workers: Annotated[int, typer.Option(min=1)] = 1000,
    replicas: Annotated[int, typer.Option(min=1)] = 100,
    modules: Annotated[int, typer.Option(min=1)] = 10_000_000,
) -> None:
    """Measure, print two tables, and write `load.json`."""
    console, settings = Console(width=140), Settings(data_dir=out / "data")
    out.mkdir(parents=True, exist_ok=True)
    zoo = open_zoo(settings)
    if zoo.database.is_sqlite:
        raise SystemExit("PNC_DATABASE_URL: expected PostgreSQL, got SQLite; see the first lines of --help")
    engine.migrate(zoo.database)
    costs = measure(zoo, [int(size) for size in sizes.split(",")], rounds)
    zoo.close()
    cluster = Cluster(workers, replicas, modules)
    found = {way: demand(costs, way, cluster, settings) for way in get_args(Way)}
    document = {
        "cluster": asdict(cluster),
        "sizes": sizes,
        "rounds": rounds,
        "job_seconds": JOB_SECONDS,
        "costs": [asdict(cost) for cost in costs],
        "capacities": CAPACITIES,
        "demand": found,
        "workers_at_capacity": {way: limits(costs, way, cluster, settings) for way in found},
    }
    (out / "load.json").write_text(json.dumps(document, indent=1) + "\n")
    console.print(_costs_table(costs))
    console.print(_demand_table(document))


def measure(zoo: Zoo, sizes: list[int], rounds: int) -> list[Cost]:
    """Costs of all acts at the last size. An act that grows gets its slope between the first and the last size."""
    found: dict[int, dict[str, Cost]] = {}
    for size in sizes:
        rows.fill(zoo, size)
        lease = prepare(zoo)
        with zoo.database.engine.connect() as connection:
            process = psutil.Process(connection.scalar(text("SELECT pg_backend_pid()")))
        found[size] = {act.name: _cost(act, zoo, lease, process, rounds) for act in ACTS}
    first, last = found[sizes[0]], found[sizes[-1]]
    return [_sloped(act, first[act.name], last[act.name], sizes) for act in ACTS]


def _sloped(act: Act, small: Cost, large: Cost, sizes: list[int]) -> Cost:
    if not act.grows:
        return large
    slope = max(0.0, large.milliseconds - small.milliseconds) / (sizes[-1] - sizes[0])
    start = max(0.0, large.milliseconds - slope * sizes[-1])
    return Cost(large.name, large.statements, large.writes, start, large.latency, 1e6 * slope)


def _cost(act: Act, zoo: Zoo, lease: Lease, process: psutil.Process, rounds: int) -> Cost:
    run(act, zoo, lease)
    with StatementCount(zoo) as count:
        run(act, zoo, lease)
        statements = count()
    spent, began = _seconds(process), time.perf_counter()
    for _ in range(rounds):
        run(act, zoo, lease)
    used, passed = _seconds(process) - spent, time.perf_counter() - began
    return Cost(act.name, statements, act.writes, 1000 * used / rounds, 1000 * passed / rounds)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def demand(costs: list[Cost], way: Way, cluster: Cluster, settings: Settings) -> dict[str, Any]:
    """Demand of each part, and the database's processors by act."""
    by_name = {cost.name: cost for cost in costs}
    processors: dict[str, float] = {}
    commits = statements = 0.0
    for (process, name), seconds in intervals(way, settings).items():
        rate, cost = cluster.count(process) / seconds, by_name[name]
        processors[name] = processors.get(name, 0.0) + rate * cost.at(cluster.modules) / 1000
        commits += rate * cost.writes
        statements += rate * cost.statements
    busy, workers = cluster.count("busy worker"), cluster.workers
    events = busy / intervals(way, settings)["busy worker", "progress"]
    parts = {
        "database processors": sum(processors.values()),
        "database connections": (5 if way == "polling" else 1) * workers
        + busy
        + 2 * cluster.replicas
        + 8 * cluster.apis,
        "database commits/s": commits,
        "Redis commands/s": sum(_redis(way, cluster)),
        "Redis connections": (CELERY + (LOOPS if way == "wake-ups" else 0)) * workers + busy + cluster.apis,
        "store puts/s": busy / settings.checkpoint_seconds + STORE_OBJECTS * busy / JOB_SECONDS,
    }
    rates = {"statements/s": statements, "events a day": 86_400 * events}
    return {"parts": parts, "rates": rates, "processors": processors}


def _redis(way: Way, cluster: Cluster) -> Iterator[float]:
    """Commands a second: of Celery, of loops that wait, of turns to look, and of turns to sweep."""
    yield cluster.workers
    if way == "wake-ups":
        yield 4 * cluster.workers
        yield 4 * cluster.workers
        yield cluster.workers


def limits(costs: list[Cost], way: Way, cluster: Cluster, settings: Settings) -> dict[str, int]:
    """Number of workers at which each part is at its capacity, with replicas in the same proportion."""
    found = {}
    for part, capacity in CAPACITIES.items():
        low, high = 0.0, 1000.0
        for _ in range(60):
            middle = (low + high) / 2
            used = demand(costs, way, cluster.scaled(middle), settings)["parts"][part]
            low, high = (middle, high) if used <= capacity else (low, middle)
        found[part] = int(low * cluster.workers)
    return found


def _costs_table(costs: list[Cost]) -> Table:
    table = Table("work", "statements", "commits", "database, ms", "ms for a million modules", "until answered, ms")
    for cost in costs:
        slope = f"{cost.per_million:.0f}" if cost.per_million else ""
        table.add_row(
            cost.name,
            str(cost.statements),
            str(int(cost.writes)),
            f"{cost.milliseconds:.2f}",
            slope,
            f"{cost.latency:.1f}",
        )
    return table


def _demand_table(document: dict[str, Any]) -> Table:
    about = document["cluster"]
    title = f"{about['workers']} workers, {about['replicas']} replicas, {about['modules']:,} modules"
    table = Table(
        "part", "capacity", *(f"{way}: {word}" for way in get_args(Way) for word in ("demand", "most workers"))
    )
    table.title = title
    for part, capacity in CAPACITIES.items():
        cells = []
        for way in get_args(Way):
            cells += [
                f"{document['demand'][way]['parts'][part]:,.1f}",
                f"{document['workers_at_capacity'][way][part]:,}",
            ]
        table.add_row(part, f"{capacity:,.1f}", *cells)
    for rate in ("statements/s", "events a day"):
        cells = [cell for way in get_args(Way) for cell in (f"{document['demand'][way]['rates'][rate]:,.0f}", "")]
        table.add_row(rate, "", *cells)
    return table


if __name__ == "__main__":
    typer.run(main)
