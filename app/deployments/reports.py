"""Reports of the serving process: it serves a generation, refuses it, or tries again later.

A refusal of a new generation returns the deployment to its last good revision.
"""

from contextlib import suppress
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import archive, clock
from app.deployments.service import get, named, publish, withdraw
from app.deployments.tables import CanaryRevisionRow, DeploymentRow, RevisionRow
from app.errors import NotFound
from app.webhooks import outbox


def observe(session: Session, name: str, generation: int, *, error: dict[str, Any] | None = None) -> None:
    """Record that the serving process serves a generation, or that it failed with `error`.

    Reports about a deleted deployment, and reports older than the last recorded one, are ignored.
    """
    row = _locked(session, name)
    if row is None or generation < (row.observed_generation or 0):
        return
    is_news = (row.observed_generation, row.observed_problem) != (generation, error)
    row.observed_generation, row.observed_problem, row.observed_at = generation, error, clock.now(session)
    if is_news:
        data = {"deployment": row.name, "generation": generation, "problem": error}
        outbox.post(session, row.workspace, "deployment.refused" if error else "deployment.served", lambda: data)


def refuse(session: Session, name: str, generation: int, problem: dict[str, Any]) -> None:
    """Record that the serving process refuses a generation because of `problem`.

    A generation that was never served is reverted. A generation that was served before stays desired: after a restart
    the serving process may fail to load it until somebody repairs the file, and nobody asked for another generation.
    """
    row = _locked(session, name)
    if row is None:
        return
    # An earlier report on the desired generation means that it was served: a refusal would have reverted it.
    is_new = (row.observed_generation or 0) < generation
    observe(session, name, generation, error=problem)
    if is_new and row.generation == generation:
        revert(session, name, generation)


def postpone(session: Session, name: str, generation: int, problem: dict[str, Any]) -> None:
    """Record that the serving process cannot serve a generation now and will try again.

    Nothing is reverted, and no webhook message is sent. A generation that was never reported on stays unreported, so
    that the serving process can still refuse it.
    """
    row = _locked(session, name)
    if row is not None and row.observed_generation == generation:
        row.observed_problem, row.observed_at = problem, clock.now(session)


def revert(session: Session, name: str, generation: int) -> DeploymentRow | None:
    """Mark a generation as refused; if it is the desired one, publish the last good revision as a new generation.

    If a newer generation is desired already, the mark is the only change. A later revert skips marked generations.

    Returns:
        The deployment; None if it had no good revision and was therefore deleted.

    Raises:
        NotFound: there is no such deployment or generation.
    """
    row = get(session, name, lock=True)
    refused = session.get(RevisionRow, (row.id, generation))
    if refused is None:
        raise NotFound(f"{name}: expected a generation up to {row.generation}, got {generation}")
    refused.refused = True
    if row.generation != generation:
        return row
    good = _last_good(session, row.id, generation)
    if good is None:
        withdraw(session, row)
        return None
    canary = good.canary and CanaryRevisionRow(
        canary_id=good.canary.canary_id, mode=good.canary.mode, share=good.canary.share
    )
    publish(session, row, good.version_id, [a.module_id for a in good.attachments], canary)
    return row


def was_desired(session: Session, name: str, generation: int, version_id: str) -> bool:
    """Whether a deployment had this generation, with this version as its target."""
    query = select(RevisionRow.version_id).join(DeploymentRow, RevisionRow.deployment_id == DeploymentRow.id)
    return session.scalar(query.where(named(session, name), RevisionRow.generation == generation)) == version_id


def _locked(session: Session, name: str) -> DeploymentRow | None:
    query = select(DeploymentRow).where(named(session, name), DeploymentRow.deleted_at.is_(None))
    return session.scalars(query.with_for_update()).one_or_none()


def _last_good(session: Session, deployment_id: str, before: int) -> RevisionRow | None:
    """The newest earlier revision that was not refused and whose target and modules were not purged."""
    earlier = select(RevisionRow.generation).where(
        RevisionRow.deployment_id == deployment_id, RevisionRow.generation < before, RevisionRow.refused.is_(False)
    )
    for generation in session.scalars(earlier.order_by(RevisionRow.generation.desc())).all():
        good = session.get_one(RevisionRow, (deployment_id, generation))
        with suppress(NotFound):
            members = [] if good.canary is None else good.canary.canary.members
            needed = {m.id: m for m in (*(a.module for a in good.attachments), *(m.module for m in members))}
            archive.hold(session, good.version, *needed.values())
            return good
    return None
