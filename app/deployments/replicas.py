"""Replicas: the running serving processes, and the generation of each deployment that each serves.

Each replica renews its own row every `BEAT_SECONDS`. A replica that has not reported for `SILENT_SECONDS` counts as
dead; the next report of any replica deletes its row.
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
"""Interval at which a replica reports although nothing has changed."""
SILENT_SECONDS = 20.0
"""A replica that has not reported for this time counts as dead."""


@dataclass(frozen=True)
class Observation:
    """A replica's report about one deployment."""

    generation: int
    """The generation that it last tried to serve."""
    problem: dict[str, Any] | None = None
    """Why it does not serve this generation; None: it does."""

    @property
    def waits(self) -> bool:
        """Whether the replica will try again, because the problem is temporary."""
        return bool(self.problem and self.problem.get("passes"))


def report(session: Session, replica: str, observed: Mapping[str, Observation]) -> None:
    """Record a replica's report, and delete the rows of dead replicas.

    Args:
        session: A writing session that belongs to no workspace.
        replica: Id of the replica.
        observed: Its report about each deployment, by the deployment's name, unique among all workspaces.
    """
    now = clock.now(session)
    session.execute(delete(ReplicaRow).where(ReplicaRow.reported_at < now - timedelta(seconds=SILENT_SECONDS)))
    row = session.get(ReplicaRow, replica)
    if row is None:
        row = ReplicaRow(id=replica)
        session.add(row)
    row.observed = {name: vars(one) for name, one in observed.items()}
    row.reported_at = now


def leave(session: Session, replica: str) -> None:
    """Delete the row of a replica that ends."""
    session.execute(delete(ReplicaRow).where(ReplicaRow.id == replica))


def list_replicas(session: Session, window: Window) -> Page[ReplicaRow]:
    """Living replicas, newest first."""
    return page(session, _alive(session), ReplicaRow.id, str, window)


def observation(session: Session, row: ReplicaRow, deployment: str) -> Observation | None:
    """A replica's report about a deployment of the session's workspace; None: there is no report yet."""
    reported = row.observed.get(qualified(workspace_of(session), deployment))
    return None if reported is None else Observation(**reported)


def observations(session: Session, deployment: str) -> dict[str, Observation | None]:
    """The report of each living replica about a deployment, by the replica's id."""
    return {row.id: observation(session, row, deployment) for row in session.scalars(_alive(session))}


def _alive(session: Session) -> Select[ReplicaRow]:
    return select(ReplicaRow).where(ReplicaRow.reported_at >= clock.now(session) - timedelta(seconds=SILENT_SECONDS))
