"""Canaries: a second set of modules of a deployment, on a share of its requests.

A canary belongs to a revision. To start it, to change it, to promote it and to end it makes a new generation, so that
the serving process swaps it like any other change, and takes it back if it refuses it.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.deployments import service as deployments
from app.deployments.service import Change
from app.deployments.tables import CanaryRevisionRow, CanaryRow
from app.errors import NotFound
from app.modules import signatures


def get(session: Session, name: str) -> CanaryRevisionRow:
    """The canary of a deployment.

    Raises:
        NotFound: there is no such deployment, or it has no canary.
    """
    canary = deployments.revision(session, deployments.get(session, name)).canary
    if canary is None:
        raise _none(name)
    return canary


def put(
    session: Session, name: str, module_ids: Sequence[str], *, mode: str, share: float, if_match: int | None = None
) -> Change:
    """Start a canary, or change it; the same canary again changes nothing.

    Another share or mode keeps the counts, other modules begin new ones.

    Args:
        session: A writing session.
        name: Name of the deployment.
        module_ids: The second set of modules, in the order of attachment; empty: the target alone.
        mode: `canary`: the second set answers. `shadow`: it only runs, and is compared with the answer.
        share: Share of the requests to which the mode applies, 0 to 1.
        if_match: The expected generation; None: any.

    Raises:
        NotFound: there is no such deployment or module.
        Invalid: the list contains a module twice.
        Archived: a module is archived, and the deployment does not have it yet.
        TargetMismatch: a module was cloned for another target.
        ClassCollision: two modules have the same class, or a module has a class of the target.
        Unsigned: the workspace requires trusted signatures, and a module has none.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = deployments.locked(session, name, if_match)
    current = deployments.revision(session, row)
    attached, old = [a.module_id for a in current.attachments], current.canary
    before = [] if old is None else [m.module_id for m in old.canary.members]
    chosen = [m.id for m in deployments.choose(session, current.version, module_ids, {*attached, *before})]
    if old is not None and before == chosen:
        if (old.mode, old.share) == (mode, share):
            return Change(row, changed=False)
        canary = CanaryRevisionRow(canary_id=old.canary_id, mode=mode, share=share)
    else:
        canary = deployments.new_canary(session, row, chosen, mode, share)
    deployments.publish(session, row, current.version_id, attached, canary)
    return Change(row, changed=True)


def end(session: Session, name: str, *, if_match: int | None = None) -> Change:
    """End a canary; without a canary nothing changes.

    Raises:
        NotFound: there is no such deployment.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = deployments.locked(session, name, if_match)
    current = deployments.revision(session, row)
    if current.canary is None:
        return Change(row, changed=False)
    deployments.publish(session, row, current.version_id, [a.module_id for a in current.attachments])
    return Change(row, changed=True)


def promote(session: Session, name: str, *, if_match: int | None = None) -> Change:
    """Attach exactly the modules of the canary, and end the canary, in one generation.

    Raises:
        NotFound: there is no such deployment, or it has no canary.
        Unsigned: the workspace requires trusted signatures, and a module has none any more.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = deployments.locked(session, name, if_match)
    current = deployments.revision(session, row)
    if current.canary is None:
        raise _none(name)
    module_ids = [member.module_id for member in current.canary.canary.members]
    signatures.check_served(session, module_ids)
    deployments.publish(session, row, current.version_id, module_ids)
    return Change(row, changed=True)


def count(session: Session, amounts: Mapping[str, Mapping[str, float]]) -> None:
    """Add to the counts of canaries.

    Args:
        session: A writing session that belongs to no workspace.
        amounts: By id of a canary and column: the number to add.
    """
    for canary in sorted(amounts):  # a fixed order prevents deadlocks
        more = {name: getattr(CanaryRow, name) + amount for name, amount in amounts[canary].items()}
        session.execute(update(CanaryRow).where(CanaryRow.id == canary).values(more))


def _none(name: str) -> NotFound:
    return NotFound(f"{name}: expected a canary, got none; start one with PUT /v1/deployments/{name}/canary")
