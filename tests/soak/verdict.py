"""Checks after a soak test: memory does not grow, and files and database are consistent."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
from sqlalchemy import func, select

from app.errors import ZooError
from app.jobs.tables import AttemptRow, JobRow
from app.settings import Settings
from app.store.objects import verified_file
from app.tables import OWNERS
from app.zoo import open_zoo
from tests.chaos.verdict import orphans

GROWTH = 0.1
"""Allowed growth of a process from the second to the last quarter of the time; the first quarter is the warm-up."""
MEGA = 1e6


@dataclass
class Memory:
    """Unshared memory (USS) of a service's processes, in MB."""

    processes: dict[str, psutil.Process]
    samples: dict[str, list[float]] = field(default_factory=dict)

    def sample(self) -> None:
        """Add one sample of each process."""
        for name, process in self.processes.items():
            self.samples.setdefault(name, []).append(process.memory_full_info().uss / MEGA)

    def grown(self) -> dict[str, tuple[float, float]]:
        """Median memory in the second and in the last quarter of the time, by process."""
        return {name: _quarters(values) for name, values in self.samples.items()}

    @property
    def is_flat(self) -> bool:
        """Whether no process has grown by more than `GROWTH`."""
        return all(late <= (1 + GROWTH) * early for early, late in self.grown().values())


def _quarters(values: list[float]) -> tuple[float, float]:
    quarter = max(1, len(values) // 4)
    return round(median(values[quarter : 2 * quarter] or values), 1), round(median(values[-quarter:]), 1)


def inconsistencies(data_dir: Path) -> list[str]:
    """Inconsistencies in the data directory of a stopped service, one line each."""
    found = [*_database(data_dir / "zoo.db")]
    zoo = open_zoo(Settings(data_dir=data_dir))
    try:
        found += [f"object {key}: no row names it" for key in sorted(orphans(zoo))]
        with zoo.database.read() as session:
            named = {
                (row.key, row.digest) for table in OWNERS for row in session.execute(select(table.key, table.digest))
            }
            open_jobs = session.scalar(select(func.count()).where(JobRow.finished_at.is_(None)))
            open_attempts = session.scalar(select(func.count()).where(AttemptRow.ended_at.is_(None)))
        for key, digest in sorted(named):
            try:
                with verified_file(zoo.store, key, digest):
                    pass
            except ZooError as error:
                found.append(f"object {key}: {error}")
        found += [f"{path}: left in the staging folder" for path in _left(zoo.staging)]
    finally:
        zoo.close()
    if open_jobs or open_attempts:
        found.append(
            f"expected all jobs to have ended, got {open_jobs} jobs and {open_attempts} attempts that have not"
        )
    return found


def _database(file: Path) -> Iterable[str]:
    with sqlite3.connect(file) as connection:
        for pragma in ("integrity_check", "foreign_key_check"):
            for row in connection.execute(f"PRAGMA {pragma}"):
                if row != ("ok",):
                    yield f"{pragma}: {row}"
    connection.close()


def _left(staging: Path) -> list[Path]:
    return [path for path in staging.rglob("*") if path.is_file()]
