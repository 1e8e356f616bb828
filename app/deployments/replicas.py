"""Serving processes: which are alive, and which generation of each deployment they work on.

Each replica keeps one row and renews it every few seconds. One that stays silent is
no longer counted, and its row goes when the next one reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from app.db import clock
from app.db.isolation import qualified, workspace_of
from app.db.pages import Page, Window, page
from app.deployments.tables import ReplicaRow

BEAT_SECONDS = 2.0
"""How often a replica reports though nothing has changed."""
SILENT_SECONDS = 20.0
"""A replica that has not reported this long is taken for dead."""


@dataclass(frozen=True)
class Observation:
    """What a replica says about one deployment."""

    generation: int
    """That it last worked on."""
    problem: dict[str, Any] | None = None
    """Why it does not serve it."""

    @property
    def waits(self) -> bool:
        """Whether it goes on trying, since the reason is a passing one."""
        return bool(self.problem and self.problem.get("passes"))


def report(session: Session, replica: str, observed: Mapping[str, Observation]) -> None:
    """A replica is alive and serves this, by deployment name; rows of silent ones go."""
    now = clock.now(session)
    session.execute(delete(ReplicaRow).where(ReplicaRow.reported_at < now - timedelta(seconds=SILENT_SECONDS)))
    row = session.get(ReplicaRow, replica)
    if row is None:
        row = ReplicaRow(id=replica)
        session.add(row)
    row.observed = {name: vars(one) for name, one in observed.items()}
    row.reported_at = now


def leave(session: Session, replica: str) -> None:
    """A replica ends."""
    session.execute(delete(ReplicaRow).where(ReplicaRow.id == replica))


def list_replicas(session: Session, window: Window) -> Page[ReplicaRow]:
    """Replicas that have reported lately, the newest first."""
    return page(session, _alive(session), ReplicaRow.id, str, window)


def observation(session: Session, row: ReplicaRow, deployment: str) -> Observation | None:
    """What a replica says about a deployment of the session's workspace; None: it has not heard of it yet."""
    said = row.observed.get(qualified(workspace_of(session), deployment))
    return None if said is None else Observation(**said)


def observations(session: Session, deployment: str) -> dict[str, Observation | None]:
    """What each living replica says about a deployment."""
    return {row.id: observation(session, row, deployment) for row in session.scalars(_alive(session))}


def _alive(session: Session) -> Select[ReplicaRow]:
    return select(ReplicaRow).where(ReplicaRow.reported_at >= clock.now(session) - timedelta(seconds=SILENT_SECONDS))
