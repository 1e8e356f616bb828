"""States of a cloning job and the allowed transitions between them.

validating ─> queued ─> running ─> succeeded
    │           │  <───────┤ │└──> failed
    │           │          │ └─> cancelling ─> cancelled
    │           │          └─> pausing ─> paused ─> queued, validating
    └───────────┴─────────────────────────────────> paused, failed, cancelled
"""

from typing import Any

from sqlalchemy.orm import Session

from app.db import clock, leases
from app.errors import InvalidTransition
from app.jobs import attempts, events, notifier, steps
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
"""The states of jobs that have not ended. Queries list these states, because an index cannot serve `NOT IN`."""
STOPPED = {"cancelling": "cancelled", "pausing": "paused"}
"""The state of a job after its worker has stopped, by the state in which it was asked to."""


def move(session: Session, job: JobRow, state: str, message: str, data: dict[str, Any] | None = None) -> None:
    """Bring a job into another state, and write an event about it.

    A job that becomes `queued` is announced to the workers. A job that ends loses its steps.

    Args:
        session: A writing session.
        job: The job, locked by this session.
        state: The new state.
        message: Description in one line, for people.
        data: Details for programs.

    Raises:
        InvalidTransition: the job's state does not allow this transition.
    """
    if state not in TRANSITIONS[job.state]:
        allowed = sorted(TRANSITIONS[job.state]) or ["none, the job has ended"]
        raise InvalidTransition(
            f"{job.id}: expected a state that may follow {job.state!r} ({', '.join(allowed)}), got {state!r}; "
            f"see GET /v1/cloning-jobs/{job.id}"
        )
    job.state = state
    if state in TERMINAL:
        job.finished_at = clock.now(session)
    if state == "queued":
        notifier.announce_job(session, job)
    events.emit(session, job, "state", message, data)
    if state in TERMINAL:
        steps.forget(session, job.id)


def end_claim(
    session: Session,
    job: JobRow,
    state: str,
    message: str,
    data: dict[str, Any] | None = None,
    *,
    outcome: str | None = None,
) -> None:
    """End the claim of a job, and bring the job into another state.

    Args:
        session: A writing session.
        job: The job, locked by this session.
        state: The new state.
        message: Description in one line, for people.
        data: Details for programs.
        outcome: Outcome of the attempt; None: the new state.
    """
    attempts.end(session, job, outcome or state, message)
    move(session, job, state, message, data)
    leases.drop(job)
