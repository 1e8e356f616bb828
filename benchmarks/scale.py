"""Time and number of queries of lists and claims, in a zoo with many models, jobs and events.

    env $(python -m tests.services up postgres) python -m benchmarks.scale --out results/scale

migrates and fills an empty database (PNC_DATABASE_URL, or SQLite below --out) and calls the API in this process, so
that the times include the database but no socket.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table
from sqlalchemy import func, insert, select, text

from app.datasets.tables import DatasetRow
from app.db import engine
from app.jobs import runs
from app.jobs.tables import EventRow, JobRow, TrialRow
from app.main import create_app
from app.models.tables import ModelRow, VersionRow
from app.modules.tables import BundleRow, ModuleRow
from app.settings import Settings
from app.zoo import Zoo, open_zoo
from benchmarks.service.statements import StatementCount

CHUNK = 5000
SPEC = {"architecture": "cnn", "classes": ["a", "b"], "input_size": [1, 8, 8], "mean": [0.0], "std": [1.0]}
CONFIG = {"classes": ["c"]}
MODULE = {"target_fingerprint": "0" * 64, "classes": ["c"], "manifest": {"config": CONFIG, "target": SPEC}}
STATES = ("queued", "succeeded", "failed", "cancelled")


def main(
    out: Annotated[Path, typer.Option(help="Folder for results.json.")],
    models: Annotated[int, typer.Option(min=2)] = 10_000,
    jobs: Annotated[int, typer.Option(min=100)] = 100_000,
    events: Annotated[int, typer.Option(min=1000)] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=5)] = 30,
) -> None:
    """Fill the database, measure, and write `results.json`."""
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    settings = Settings(data_dir=out / "data")
    zoo = open_zoo(settings)
    engine.migrate(zoo.database)
    with zoo.database.read() as session:
        if session.scalar(select(func.count(ModelRow.id))):
            raise SystemExit("expected an empty database, got one with models; name another PNC_DATABASE_URL or --out")
    fill(zoo, models, jobs, events)
    rows = [*asyncio.run(time_lists(settings, rounds, jobs)), time_claims(zoo, rounds)]
    zoo.close()
    facts = {"database": zoo.database.engine.dialect.name, "models": models, "jobs": jobs, "events": events}
    (out / "results.json").write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    table = Table("what", "median ms", "worst ms", "queries", title=str(facts))
    for row in rows:
        table.add_row(row["what"], f"{row['median_ms']:.1f}", f"{row['worst_ms']:.1f}", str(row["queries"]))
    console.print(table)


def fill(zoo: Zoo, models: int, jobs: int, events: int) -> None:
    """Insert rows as the service writes them, many at a time."""
    with Progress() as progress:
        task = progress.add_task("filling", total=2 * models + 2 * jobs + 3 * (jobs // len(STATES)) + events)
        for table, rows in _rows(models, jobs, events):
            for chunk in _chunks(rows):
                with zoo.database.write() as session:
                    session.execute(insert(table), chunk)
                progress.advance(task, len(chunk))
    # Collect statistics now; otherwise the database might do it during the measurement.
    with zoo.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE" if zoo.database.is_sqlite else "VACUUM ANALYZE"))


def _rows(models: int, jobs: int, events: int) -> Iterator[tuple[Any, Iterator[dict[str, Any]]]]:
    digest = "0" * 64
    yield ModelRow, ({"id": f"mdl_{i:032x}", "name": f"model-{i}", "last_version": 1} for i in range(models))
    version = {"number": 1, "status": "ready", "spec": SPEC, "digest": digest, "bytes": 4, "key": f"00/{digest[2:]}"}
    numbers = {"fingerprint": digest, "parameters": 1000, "macs": 5000}
    yield (
        VersionRow,
        ({"id": f"ver_{i:032x}", "model_id": f"mdl_{i:032x}", **version, **numbers} for i in range(models)),
    )
    data = {"name": "d", "digest": digest, "bytes": 4, "key": version["key"], "rows": 9, "classes": ["c"], "counts": {}}
    yield DatasetRow, iter([{"id": f"ds_{0:032x}", **data}])
    each = max(1, events // jobs)
    job = {"dataset_id": f"ds_{0:032x}", "config": CONFIG, "last_seq": each}
    yield (
        JobRow,
        (
            {
                "id": f"job_{i:032x}",
                "state": STATES[i % len(STATES)],
                **_cloned(i, models),
                **job,
            }
            for i in range(jobs)
        ),
    )
    line = {"type": "progress", "state": "running", "progress": 0.5, "message": "inserting", "data": {}}
    yield (
        EventRow,
        (
            {"id": f"evt_{i:032x}", "job_id": f"job_{i // each:032x}", "seq": i % each + 1, **line}
            for i in range(each * jobs)
        ),
    )
    done = [i for i in range(jobs) if STATES[i % len(STATES)] == "succeeded"]
    yield ModuleRow, ({"id": f"mod_{i:032x}", "job_id": f"job_{i:032x}", **_cloned(i, models), **MODULE} for i in done)
    file = {"digest": digest, "bytes": 4, "key": version["key"]}
    yield BundleRow, ({"module_id": f"mod_{i:032x}", "payload": p, **file} for i in done for p in ("full", "thin"))
    trial = {"attempt": 1, "target_position": "a", "source_position": "b", "round": 0, "score": 0.5}
    yield TrialRow, ({"id": f"trl_{i:032x}", "job_id": f"job_{i:032x}", **trial} for i in range(jobs))


def _cloned(job: int, models: int) -> dict[str, str]:
    return {
        "target_version_id": f"ver_{job % models:032x}",
        "source_version_id": f"ver_{(job + 1) % models:032x}",
    }


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def time_lists(settings: Settings, rounds: int, jobs: int) -> list[dict[str, Any]]:
    """Time every list: the first page, and for models and jobs the second page too."""
    app = create_app(settings)
    zoo: Zoo = app.state.zoo
    middle = f"job_{jobs // 2:032x}"
    paths = ["/v1/models", "/v1/models?limit=100", "/v1/models/model-77/versions", "/v1/datasets", "/v1/modules"]
    paths += ["/v1/deployments", "/v1/cloning-jobs", "/v1/cloning-jobs?limit=100", "/v1/cloning-jobs?state=queued"]
    paths += [
        "/v1/modules?limit=100",
        f"/v1/modules/mod_{1:032x}",
        f"/v1/cloning-jobs/{middle}",
        f"/v1/cloning-jobs/{middle}/events",
        f"/v1/cloning-jobs/{middle}/trials",
    ]
    rows = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8000") as client:
        for start in ("/v1/models", "/v1/cloning-jobs"):
            cursor = (await client.get(f"{start}?limit=100")).json()["next_cursor"]
            paths.append(f"{start}?after={cursor}")
        for path in track([*paths, "/metrics"], "requests"):
            taken, queries = [], 0
            for _ in range(rounds):
                with StatementCount(zoo) as query_count:
                    began = time.perf_counter()
                    response = await client.get(path)
                    taken.append(time.perf_counter() - began)
                response.raise_for_status()
                queries = query_count()
            rows.append(
                _row(f"GET {path.split('?after=')[0]}{'?after=...' if 'after=' in path else ''}", taken, queries)
            )
    zoo.close()
    return rows


def time_claims(zoo: Zoo, rounds: int) -> dict[str, Any]:
    """Time claims: each round another worker claims the oldest queued job."""
    taken, queries = [], 0
    for number in range(rounds):
        with StatementCount(zoo) as query_count:
            began = time.perf_counter()
            with zoo.database.write() as session:
                lease = runs.claim(session, f"worker-{number}")
                assert lease is not None
            taken.append(time.perf_counter() - began)
        queries = query_count()
    return _row("claim of a job", taken, queries)


def _row(what: str, taken: list[float], queries: int) -> dict[str, Any]:
    return {
        "what": what,
        "median_ms": 1000 * statistics.median(taken),
        "worst_ms": 1000 * max(taken),
        "queries": queries,
    }


if __name__ == "__main__":
    typer.run(main)
