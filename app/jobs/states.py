"""States of a cloning job and the ways between them.

validating ─> queued ─> running ─> succeeded
    │           │  <───────┤ │└──> failed
    │           │          │ └─> cancelling ─> cancelled
    │           │          └─> pausing ─> paused ─> queued, validating
    └───────────┴─────────────────────────────────> paused, failed, cancelled
"""

from typing import Any

from sqlalchemy.orm import Session

from app.db import clock
from app.errors import InvalidTransition
from app.jobs import events, notifier
from app.jobs.tables import JobRow

TRANSITIONS: dict[str, frozenset[str]] = {
    "validating": frozenset({"queued", "paused", "failed", "cancelled"}),
    "queued": frozenset({"running", "paused", "cancelled"}),
    "running": frozenset({"queued", "pausing", "cancelling", "succeeded", "failed"}),
    "pausing": frozenset({"paused", "running", "cancelling", "succeeded", "failed"}),
    "paused": frozenset({"queued", "validating", "cancelled"}),
    "cancelling": frozenset({"cancelled", "failed"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
TERMINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)
LIVE = frozenset(TRANSITIONS) - TERMINAL
"""An index finds these among many jobs that have ended; "none of the others" no index can find."""


def move(session: Session, job: JobRow, state: str, message: str, data: dict[str, Any] | None = None) -> None:
    """Bring a job into another state and write that down; the row must be locked.

    Raises:
        InvalidTransition: there is no way from its state to that one.
    """
    if state not in TRANSITIONS[job.state]:
        allowed = sorted(TRANSITIONS[job.state]) or ["none, the job has ended"]
        raise InvalidTransition(
            f"{job.id}: expected a way from {job.state!r} ({', '.join(allowed)}), got {state!r}; "
            f"see GET /v1/cloning-jobs/{job.id}"
        )
    job.state = state
    if state in TERMINAL:
        job.finished_at = clock.now(session)
    if state == "queued":
        notifier.announce_job(session, job)
    events.emit(session, job, "state", message, data)
