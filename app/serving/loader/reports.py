"""Reports of served and refused generations to the database, repeated until they are written.

After a lost report, a later process would take a served generation for a new one, and could refuse it. Reports that
cannot be written are also stored in a file, because the process may end before the database is back.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.deployments import reports
from app.process.troubles import is_passing
from app.zoo import Zoo

log = logging.getLogger(__name__)
FIRST_SECONDS, MOST_SECONDS = 0.5, 10.0
"""Pause after the first failed write, and the longest pause."""


@dataclass(frozen=True)
class Report:
    """A generation of a deployment is served, refused or postponed."""

    deployment: str
    version_id: str
    generation: int
    problem: dict[str, Any] | None = None
    """Reason why the generation is not served; None: it is served."""
    passes: bool = False
    """Whether the generation is only postponed and stays wanted."""
    recalled: bool = False
    """Whether a process that has ended left the report."""

    def write(self, session: Session) -> None:
        """Write the report to the database."""
        if self.recalled and not reports.was_desired(session, self.deployment, self.generation, self.version_id):
            return  # the report belongs to another database
        if self.problem is None:
            reports.observe(session, self.deployment, self.generation)
        elif self.passes:
            reports.postpone(session, self.deployment, self.generation, self.problem)
        else:
            reports.refuse(session, self.deployment, self.generation, self.problem)


class Reports:
    """Writes reports in their order.

    Args:
        zoo: Holds the database.
        replica: Id of this process's replica.
        beside: Further writes in every transaction of a report.
    """

    def __init__(self, zoo: Zoo, replica: str, beside: Callable[[Session], None]) -> None:
        self._zoo, self._beside = zoo, beside
        self._folder = zoo.settings.data_dir / "unreported"
        self._file = self._folder / f"{replica}.json"
        self._left = sorted(self._folder.glob("*.json"))
        """Files that processes have left at their end."""
        self._waiting = [report for path in self._left for report in _read(path)]
        self._lock = threading.Lock()
        self._pause, self._next = 0.0, 0.0

    def add(self, report: Report) -> None:
        """Write a report after the waiting ones, now or later."""
        with self._lock:
            if report not in self._waiting:
                self._waiting.append(report)
            self._write_all()

    def catch_up(self) -> None:
        """Write waiting reports if the pause is over."""
        with self._lock:
            if (self._waiting or self._left) and time.monotonic() >= self._next:
                self._write_all()

    def _write_all(self) -> None:
        failed: list[Report] = []
        for place, report in enumerate(self._waiting):
            try:
                with self._zoo.database.write() as session:
                    report.write(session)
                    self._beside(session)
            except Exception as error:
                failed.append(report)
                if is_passing(error):
                    log.warning("%s: not reported yet: %s", report.deployment, " ".join(str(error).split())[:300])
                    failed += self._waiting[place + 1 :]
                    break
                log.exception("%s: not reported yet", report.deployment)
        self._waiting = failed
        self._pause = min(max(2 * self._pause, FIRST_SECONDS), MOST_SECONDS) if failed else 0.0
        self._next = time.monotonic() + self._pause
        self._keep()

    def _keep(self) -> None:
        """Store waiting reports in a file for a later process."""
        served = [[r.deployment, r.version_id, r.generation] for r in self._waiting if r.problem is None]
        try:
            if served:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                fresh = self._file.with_suffix(".new")
                fresh.write_text(json.dumps(served))
                fresh.replace(self._file)
            else:
                self._file.unlink(missing_ok=True)
            if not any(report.recalled for report in self._waiting):
                for path in self._left:
                    path.unlink(missing_ok=True)
                self._left = []
        except OSError as error:
            log.warning("waiting reports are in memory only: %s", error)


def _read(path: Path) -> Iterator[Report]:
    """Reports from a file of a process that has ended. A damaged file yields none."""
    try:
        for deployment, version_id, generation in json.loads(path.read_text()):
            yield Report(str(deployment), str(version_id), int(generation), recalled=True)
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s: expected reports, got %s; ignored", path, error)
