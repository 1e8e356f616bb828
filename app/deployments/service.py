"""Deployments: the desired state of each, revision by revision.

A deployment's `generation` is the number of its newest revision, which is the desired one. Each change makes a new
revision and leaves the old ones as they are. The serving process reads the desired state (`app.deployments.desired`)
and reports its progress (`app.deployments.reports`).
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, lazyload, selectinload

from app.compositions import service as compositions
from app.compositions.tables import CompositionRow
from app.db import archive, clock, leases
from app.db.ids import new_id
from app.db.isolation import parted, workspace_of
from app.db.pages import Page, Window, page
from app.deployments import checks
from app.deployments.desired import IS_WANTED
from app.deployments.tables import (
    AttachmentRow,
    CanaryModuleRow,
    CanaryRevisionRow,
    CanaryRow,
    DeploymentRow,
    RevisionRow,
)
from app.errors import Conflict, Invalid, NotFound
from app.models.tables import VersionRow
from app.modules import service as modules
from app.modules import signatures
from app.modules.tables import ModuleRow
from app.names import check_name
from app.webhooks import outbox


@dataclass(frozen=True)
class Change:
    """The result of a request to change a deployment."""

    deployment: DeploymentRow
    changed: bool
    """Whether the request made a new generation; False: the deployment was as requested already."""


def put(session: Session, name: str, target: str, *, if_match: int | None = None) -> Change:
    """Create a deployment, or give it another target; the same target again changes nothing.

    Raises:
        Invalid: the name is not valid, or the target cannot be served.
        Conflict: the target would change while modules are attached or a canary runs.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    check_name(name, "path:deployment")
    version = checks.servable(session, target)
    row = session.scalars(select(DeploymentRow).where(named(session, name)).with_for_update()).one_or_none()
    checks.check_generation(name, row, if_match)
    if row is None:
        row = DeploymentRow(id=new_id("dep"), name=name, generation=0)
        session.add(row)
        session.flush()
    elif row.deleted_at is None:
        current = revision(session, row)
        if current.version_id == version.id:
            return Change(row, changed=False)
        checks.check_no_modules(name, current)
    checks.check_target_live(session, version)
    row.deleted_at = None
    publish(session, row, version.id, [])
    return Change(row, changed=True)


def list_deployments(session: Session, window: Window) -> Page[DeploymentRow]:
    """Deployments, newest first."""
    query = select(DeploymentRow).where(DeploymentRow.deleted_at.is_(None))
    return page(session, query, DeploymentRow.id, str, window)


def get(session: Session, name: str, *, lock: bool = False) -> DeploymentRow:
    """One deployment.

    Args:
        session: A session; a writing session if `lock`.
        name: Name of the deployment.
        lock: Lock the row until this transaction ends, and read it anew under the lock.

    Raises:
        NotFound: there is no deployment with this name.
    """
    query = select(DeploymentRow).where(named(session, name), DeploymentRow.deleted_at.is_(None))
    if lock:
        query = query.with_for_update().execution_options(**leases.FRESH)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFound(f"expected a deployment, got none named {name!r:.80}; make it with PUT /v1/deployments/<name>")
    return row


def revision(session: Session, deployment: DeploymentRow) -> RevisionRow:
    """The desired revision of a deployment."""
    return session.get_one(RevisionRow, (deployment.id, deployment.generation))


def revisions(session: Session, deployments: Sequence[DeploymentRow]) -> dict[str, RevisionRow]:
    """The desired revision of each deployment, by the deployment's id, read in one query."""
    query = select(RevisionRow).join(DeploymentRow, IS_WANTED).where(DeploymentRow.id.in_([d.id for d in deployments]))
    return {row.deployment_id: row for row in session.scalars(query)}


def list_revisions(session: Session, row: DeploymentRow, window: Window) -> Page[RevisionRow]:
    """All revisions of a deployment, newest first."""
    query = select(RevisionRow).where(RevisionRow.deployment_id == row.id)
    return page(session, query, RevisionRow.generation, int, window)


def count_revisions(session: Session, row: DeploymentRow) -> int:
    """The number of revisions that a deployment has had."""
    mine = RevisionRow.deployment_id == row.id
    return session.scalar(select(func.count()).select_from(RevisionRow).where(mine)) or 0


def attach(session: Session, name: str, module_id: str, *, if_match: int | None = None) -> Change:
    """Attach a module; a module that is attached already changes nothing, unless there is a newer composition.

    Raises:
        NotFound: there is no such deployment or module.
        Archived: the module is archived.
        TargetMismatch: the module was cloned for another target.
        ClassCollision: the target or an attached module has one of the module's classes.
        Unsigned: the workspace requires a trusted signature, and the module has none.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = locked(session, name, if_match)
    current, module = _to_change(session, row), modules.get(session, module_id, lazyload("*"), keep=True)
    attached = [a.module for a in current.attachments]
    if module.id in {m.id for m in attached} and _is_newest(session, current):
        return Change(row, changed=False)
    if module.id in {m.id for m in attached}:
        change_modules(session, row, current, [m.id for m in attached])
        return Change(row, changed=True)
    archive.check_live(module)
    checks.check_fits(session, current.version, attached, module)
    change_modules(session, row, current, [*(m.id for m in attached), module.id])
    return Change(row, changed=True)


def detach(session: Session, name: str, module_id: str, *, if_match: int | None = None) -> Change:
    """Detach a module; a module that is not attached changes nothing.

    Raises:
        NotFound: there is no such deployment or module.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = locked(session, name, if_match)
    current = _to_change(session, row)
    attached = [a.module_id for a in current.attachments]
    if module_id not in attached:
        modules.get(session, module_id)
        return Change(row, changed=False)
    change_modules(session, row, current, [m for m in attached if m != module_id])
    return Change(row, changed=True)


def set_modules(session: Session, name: str, module_ids: Sequence[str], *, if_match: int | None = None) -> Change:
    """Attach exactly these modules, in this order, in one revision.

    The same list again changes nothing, unless there is a newer composition of these modules.

    Raises:
        NotFound: there is no such deployment or module.
        Invalid: the list contains a module twice.
        Archived: a module is archived and not attached yet.
        TargetMismatch: a module was cloned for another target.
        ClassCollision: two modules have the same class, or a module has a class of the target.
        Unsigned: the workspace requires trusted signatures, and a module has none.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = locked(session, name, if_match)
    current = _to_change(session, row)
    chosen = choose(session, current.version, module_ids, {a.module_id for a in current.attachments})
    if [m.id for m in chosen] == [a.module_id for a in current.attachments] and _is_newest(session, current):
        return Change(row, changed=False)
    change_modules(session, row, current, [m.id for m in chosen])
    return Change(row, changed=True)


def choose(
    session: Session, version: VersionRow, module_ids: Sequence[str], known: AbstractSet[str]
) -> list[ModuleRow]:
    """The modules of a list, if a target can have all of them together. They are locked against purging.

    Args:
        session: A writing session.
        version: The target.
        module_ids: Ids of the modules.
        known: Ids of modules that may be archived, because the deployment has them already.

    Raises:
        NotFound: there is no such module.
        Invalid: the list contains a module twice.
        Archived: a module is archived and not known.
        TargetMismatch: a module was cloned for another target.
        ClassCollision: two modules have the same class, or a module has a class of the target.
        Unsigned: the workspace requires trusted signatures, and a module has none.
    """
    if len(set(module_ids)) != len(module_ids):
        raise Invalid.at("/modules", "repeated", f"expected every module once, got {list(module_ids)}")
    chosen: list[ModuleRow] = []
    for module in (modules.get(session, module_id, lazyload("*"), keep=True) for module_id in module_ids):
        if module.id not in known:
            archive.check_live(module)
        checks.check_fits(session, version, chosen, module)
        chosen.append(module)
    return chosen


def rollback(session: Session, name: str, generation: int, *, if_match: int | None = None) -> Change:
    """Publish the target and modules of an earlier generation as a new one, which has no canary.

    Nothing changes if the deployment has this target and these modules already, and no canary.

    Raises:
        NotFound: there is no such deployment or generation, or the target or a module was purged.
        Conflict: the serving process refused that generation.
        Archived: the target or a module is archived, and the current revision does not contain it.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = locked(session, name, if_match)
    earlier = session.get(RevisionRow, (row.id, generation))
    if earlier is None:
        raise NotFound(f"{name}: expected a generation from 1 to {row.generation}, got {generation}")
    if earlier.refused:
        raise Conflict(f"{name}: expected a generation that was served, got {generation}, which was refused")
    current = revision(session, row)
    if _contents(earlier) == _contents(current) and current.canary is None:
        return Change(row, changed=False)
    checks.check_restorable(session, earlier, current)
    signatures.check_served(session, [a.module_id for a in earlier.attachments])
    publish(session, row, earlier.version_id, [a.module_id for a in earlier.attachments])
    return Change(row, changed=True)


def delete(session: Session, name: str, *, if_match: int | None = None) -> int:
    """Delete a deployment, and return its last generation.

    The row stays: a new deployment of the same name continues with the next generation.

    Raises:
        NotFound: there is no such deployment.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = locked(session, name, if_match)
    withdraw(session, row)
    return row.generation


def change_modules(session: Session, row: DeploymentRow, current: RevisionRow, module_ids: Sequence[str]) -> None:
    """Make a new generation with other attached modules. A canary goes on, and is counted anew."""
    old, canary = current.canary, None
    if old is not None:
        canary = new_canary(session, row, [m.module_id for m in old.canary.members], old.mode, old.share)
    publish(session, row, current.version_id, module_ids, canary)


def new_canary(
    session: Session, row: DeploymentRow, module_ids: Sequence[str], mode: str, share: float
) -> CanaryRevisionRow:
    """A canary without counts, for a new generation of a deployment."""
    members = [CanaryModuleRow(module_id=m, ordinal=i) for i, m in enumerate(module_ids)]
    canary = CanaryRow(id=new_id("can"), deployment_id=row.id, members=members)
    session.add(canary)
    session.flush()
    return CanaryRevisionRow(canary_id=canary.id, mode=mode, share=share)


def publish(
    session: Session,
    row: DeploymentRow,
    version_id: str,
    module_ids: Sequence[str],
    canary: CanaryRevisionRow | None = None,
) -> None:
    """Make a new generation of a deployment, and write the webhook message about it.

    The generation takes the newest ready composition of exactly these modules, if there is one.

    Args:
        session: A writing session.
        row: The deployment, locked by this transaction.
        version_id: The target.
        module_ids: The modules, in the order in which they are attached.
        canary: The canary of the new generation; None: it has none.
    """
    row.generation += 1
    attachments = [AttachmentRow(module_id=m, ordinal=i) for i, m in enumerate(module_ids)]
    composition = compositions.newest(session, version_id, module_ids)
    session.add(
        RevisionRow(
            deployment_id=row.id,
            generation=row.generation,
            version_id=version_id,
            composition_id=None if composition is None else composition.id,
            attachments=attachments,
            canary=canary,
        )
    )
    session.flush()

    def data() -> dict[str, Any]:
        target = session.get_one(VersionRow, version_id).ref
        beside = None if canary is None else {"id": canary.canary_id, "mode": canary.mode, "share": canary.share}
        changed = {"deployment": row.name, "generation": row.generation, "modules": [*module_ids], "target": target}
        return {**changed, "canary": beside}

    outbox.post(session, row.workspace, "deployment.changed", data)


def _is_newest(session: Session, current: RevisionRow) -> bool:
    """Whether a revision has the newest composition of its modules."""
    newest = compositions.newest(session, current.version_id, [a.module_id for a in current.attachments])
    return newest is None or newest.id == current.composition_id


def check_unused(session: Session, composition: CompositionRow) -> None:
    """Check that no deployment's newest generation has a composition.

    Raises:
        Conflict: a deployment has it.
    """
    query = (
        select(DeploymentRow.name)
        .join(RevisionRow, IS_WANTED)
        .where(DeploymentRow.deleted_at.is_(None), RevisionRow.composition_id == composition.id)
    )
    names = session.scalars(query.order_by(DeploymentRow.name).limit(5)).all()
    if names:
        raise Conflict(
            f"{composition.id}: expected a composition that no deployment has, got one of {', '.join(names)}; detach a "
            "module there first, or attach the modules again with a newer composition"
        )


def withdraw(session: Session, row: DeploymentRow) -> None:
    """Mark a deployment as deleted, and write the webhook message about it; the row must be locked."""
    row.deleted_at = clock.now(session)
    data = {"deployment": row.name, "generation": row.generation}
    outbox.post(session, row.workspace, "deployment.deleted", lambda: data)


def named(session: Session, name: str) -> ColumnElement[bool]:
    """The condition that selects a deployment by its name, which may contain the workspace: `workspace/name`."""
    workspace, bare = parted(name, workspace_of(session))
    return (DeploymentRow.workspace == workspace) & (DeploymentRow.name == bare)


def _to_change(session: Session, deployment: DeploymentRow) -> RevisionRow:
    """The desired revision with only the columns that a change needs, because an attach request waits for it."""
    needed = (lazyload("*"), selectinload(RevisionRow.attachments).selectinload(AttachmentRow.module))
    return session.get_one(RevisionRow, (deployment.id, deployment.generation), options=needed)


def locked(session: Session, name: str, if_match: int | None) -> DeploymentRow:
    """A deployment, locked until this transaction ends.

    Raises:
        NotFound: there is no such deployment.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = get(session, name, lock=True)
    checks.check_generation(name, row, if_match)
    return row


def _contents(row: RevisionRow) -> tuple[str, list[str]]:
    return row.version_id, [a.module_id for a in row.attachments]
