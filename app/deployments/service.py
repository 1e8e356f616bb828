"""Deployments: what shall be served, revision by revision.

A deployment's `generation` names its newest revision. Attaching, detaching and
reverting each make a new revision; old ones stay as they were. The serving
process reads what is `desired` and reports with `observe`.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, lazyload, selectinload

from app.db import archive, clock, leases
from app.db.ids import new_id
from app.db.isolation import parted, workspace_of
from app.db.pages import Page, Window, page
from app.db.tables import Archivable
from app.deployments.desired import IS_WANTED
from app.deployments.tables import AttachmentRow, DeploymentRow, RevisionRow
from app.errors import ClassCollision, Conflict, Invalid, NotFound, StaleRevision, TargetMismatch
from app.models import service as models
from app.models.tables import VersionRow
from app.modules import service as modules
from app.modules import signatures
from app.modules.tables import ModuleRow
from app.names import check_name
from app.webhooks import outbox


@dataclass(frozen=True)
class Change:
    """What became of a wish."""

    deployment: DeploymentRow
    changed: bool
    """A new generation was made; false: it was so already."""


def put(session: Session, name: str, target: str, *, if_match: int | None = None) -> Change:
    """Create a deployment, or give it another target; the same target again changes nothing.

    Raises:
        Invalid: the name is not one, or the target cannot be served.
        Conflict: modules are attached, and the target is another one.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    check_name(name, "path:deployment")
    version = _servable(session, target)
    row = session.scalars(select(DeploymentRow).where(_named(session, name)).with_for_update()).one_or_none()
    _check_generation(name, row, if_match)
    if row is None:
        row = DeploymentRow(id=new_id("dep"), name=name, generation=0)
        session.add(row)
        session.flush()
    elif row.deleted_at is None:
        current = revision(session, row)
        if current.version_id == version.id:
            return Change(row, changed=False)
        _check_bare(name, current)
    _check_live(session, version)
    row.deleted_at = None
    _publish(session, row, version.id, [])
    return Change(row, changed=True)


def list_deployments(session: Session, window: Window) -> Page[DeploymentRow]:
    """Deployments, newest first."""
    query = select(DeploymentRow).where(DeploymentRow.deleted_at.is_(None))
    return page(session, query, DeploymentRow.id, str, window)


def get(session: Session, name: str, *, lock: bool = False) -> DeploymentRow:
    """One deployment.

    Args:
        session: Where it is read.
        name: Of the deployment.
        lock: Whether others who change it wait for this transaction's end; it is read anew then.

    Raises:
        NotFound: there is none with this name.
    """
    query = select(DeploymentRow).where(_named(session, name), DeploymentRow.deleted_at.is_(None))
    if lock:
        query = query.with_for_update().execution_options(**leases.FRESH)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFound(f"expected a deployment, got none named {name!r:.80}; make it with PUT /v1/deployments/<name>")
    return row


def revision(session: Session, deployment: DeploymentRow) -> RevisionRow:
    """The revision that is wanted."""
    return session.get_one(RevisionRow, (deployment.id, deployment.generation))


def _current(session: Session, deployment: DeploymentRow) -> RevisionRow:
    """The revision that is wanted, to be changed: who attaches waits, and what nobody asks for is not read."""
    needed = (lazyload("*"), selectinload(RevisionRow.attachments).selectinload(AttachmentRow.module))
    return session.get_one(RevisionRow, (deployment.id, deployment.generation), options=needed)


def revisions(session: Session, deployments: Sequence[DeploymentRow]) -> dict[str, RevisionRow]:
    """The wanted revision of each deployment, by the deployment's id, with one query for all."""
    query = select(RevisionRow).join(DeploymentRow, IS_WANTED).where(DeploymentRow.id.in_([d.id for d in deployments]))
    return {row.deployment_id: row for row in session.scalars(query)}


def attach(session: Session, name: str, module_id: str, *, if_match: int | None = None) -> Change:
    """Want a module attached; one that is attached already changes nothing.

    Raises:
        NotFound: there is no such deployment or module.
        Archived: the module is archived.
        TargetMismatch: the module was cloned for another target.
        ClassCollision: one of its classes is there already.
        Unsigned: signatures are required, and it has none.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = _locked(session, name, if_match)
    current, module = _current(session, row), modules.get(session, module_id, lazyload("*"), keep=True)
    attached = [a.module for a in current.attachments]
    if module.id in {m.id for m in attached}:
        return Change(row, changed=False)
    archive.check_live(module)
    _check_fits(session, current.version, attached, module)
    _publish(session, row, current.version_id, [*(m.id for m in attached), module.id])
    return Change(row, changed=True)


def detach(session: Session, name: str, module_id: str, *, if_match: int | None = None) -> Change:
    """Want a module detached; one that is not attached changes nothing.

    Raises:
        NotFound: there is no such deployment or module.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = _locked(session, name, if_match)
    current = _current(session, row)
    attached = [a.module_id for a in current.attachments]
    if module_id not in attached:
        modules.get(session, module_id)
        return Change(row, changed=False)
    _publish(session, row, current.version_id, [m for m in attached if m != module_id])
    return Change(row, changed=True)


def set_modules(session: Session, name: str, module_ids: Sequence[str], *, if_match: int | None = None) -> Change:
    """Want exactly these modules attached, in this order, as one revision; the same ones change nothing.

    Raises:
        NotFound: there is no such deployment or module.
        Invalid: a module is named twice.
        Archived: a module that is not attached yet is archived.
        TargetMismatch: a module was cloned for another target.
        ClassCollision: two modules bring the same class, or the target has it.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = _locked(session, name, if_match)
    current = _current(session, row)
    if len(set(module_ids)) != len(module_ids):
        raise Invalid.at("/modules", "repeated", f"expected every module once, got {list(module_ids)}")
    wanted: list[ModuleRow] = []
    attached = {a.module_id for a in current.attachments}
    for module in (modules.get(session, module_id, lazyload("*"), keep=True) for module_id in module_ids):
        if module.id not in attached:
            archive.check_live(module)
        _check_fits(session, current.version, wanted, module)
        wanted.append(module)
    if [m.id for m in wanted] == [a.module_id for a in current.attachments]:
        return Change(row, changed=False)
    _publish(session, row, current.version_id, [m.id for m in wanted])
    return Change(row, changed=True)


def rollback(session: Session, name: str, generation: int, *, if_match: int | None = None) -> Change:
    """Want again what an earlier generation was, as a new one; if it is so already, nothing changes.

    Raises:
        NotFound: there is no such deployment, it never had this generation, or something of that was purged.
        Conflict: the serving process refused that generation.
        Archived: something of it that is not served now is archived.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = _locked(session, name, if_match)
    earlier = session.get(RevisionRow, (row.id, generation))
    if earlier is None:
        raise NotFound(f"{name}: expected a generation from 1 to {row.generation}, got {generation}")
    if earlier.refused:
        raise Conflict(f"{name}: expected a generation that was served, got {generation}, which was refused")
    current = revision(session, row)
    if _contents(earlier) == _contents(current):
        return Change(row, changed=False)
    _check_whole(session, earlier, current)
    signatures.check_served(session, [a.module_id for a in earlier.attachments])
    _publish(session, row, earlier.version_id, [a.module_id for a in earlier.attachments])
    return Change(row, changed=True)


def list_revisions(session: Session, name: str, window: Window) -> Page[RevisionRow]:
    """All generations of a deployment, newest first.

    Raises:
        NotFound: there is no such deployment.
    """
    query = select(RevisionRow).where(RevisionRow.deployment_id == get(session, name).id)
    return page(session, query, RevisionRow.generation, int, window)


def count_revisions(session: Session, row: DeploymentRow) -> int:
    """How many generations a deployment has had."""
    mine = RevisionRow.deployment_id == row.id
    return session.scalar(select(func.count()).select_from(RevisionRow).where(mine)) or 0


def delete(session: Session, name: str, *, if_match: int | None = None) -> int:
    """Serve it no more; returns its last generation, from which to count on, should the name come back.

    Raises:
        NotFound: there is no such deployment.
        StaleRevision: `if_match` is not the deployment's generation.
    """
    row = _locked(session, name, if_match)
    _take_away(session, row)
    return row.generation


def revert(session: Session, name: str, generation: int) -> DeploymentRow | None:
    """Go back to what was wanted before a generation that the serving process refused.

    Nothing changes when something newer is wanted already, but for the mark
    that keeps later reverts from coming back to the refused one.

    Returns:
        The deployment; None when there is nothing to go back to, and it is gone.

    Raises:
        NotFound: there is no such deployment.
    """
    row = _locked(session, name, None)
    refused = session.get(RevisionRow, (row.id, generation))
    if refused is None:
        raise NotFound(f"{name}: expected a generation up to {row.generation}, got {generation}")
    refused.refused = True
    if row.generation != generation:
        return row
    good = _last_good(session, row.id, generation)
    if good is None:
        _take_away(session, row)
        return None
    _publish(session, row, good.version_id, [a.module_id for a in good.attachments])
    return row


def observe(session: Session, name: str, generation: int, *, error: dict[str, Any] | None = None) -> None:
    """Report from the serving process: it serves this generation, or cannot because of `error`.

    A deployment that is gone, and reports older than the last one, are passed over.
    """
    query = select(DeploymentRow).where(_named(session, name), DeploymentRow.deleted_at.is_(None))
    row = session.scalars(query.with_for_update()).one_or_none()
    if row is None or generation < (row.observed_generation or 0):
        return
    is_news = (row.observed_generation, row.observed_problem) != (generation, error)
    row.observed_generation, row.observed_problem, row.observed_at = generation, error, clock.now(session)
    if is_news:
        told = {"deployment": row.name, "generation": generation, "problem": error}
        outbox.post(session, row.workspace, "deployment.refused" if error else "deployment.served", lambda: told)


def refuse(session: Session, name: str, generation: int, problem: dict[str, Any]) -> None:
    """Report from the serving process: it will not serve this generation, because of `problem`.

    A generation that was never served is taken back. One that was served before, as after a
    restart, stays wanted: what is broken may be mended, and nobody falls back unasked.
    """
    query = select(DeploymentRow).where(_named(session, name), DeploymentRow.deleted_at.is_(None))
    row = session.scalars(query.with_for_update()).one_or_none()
    if row is None:
        return
    # A wanted generation that was reported on before was served: a refusal would have taken it back.
    is_new = (row.observed_generation or 0) < generation
    observe(session, name, generation, error=problem)
    if is_new and row.generation == generation:
        revert(session, name, generation)


def postpone(session: Session, name: str, generation: int, problem: dict[str, Any]) -> None:
    """Report from the serving process: it cannot serve this generation yet, and goes on trying.

    Nothing is taken back, and nobody is told. A generation that was never served still counts as
    not worked on: it may yet be refused.
    """
    query = select(DeploymentRow).where(_named(session, name), DeploymentRow.deleted_at.is_(None))
    row = session.scalars(query.with_for_update()).one_or_none()
    if row is not None and row.observed_generation == generation:
        row.observed_problem, row.observed_at = problem, clock.now(session)


def was_wanted(session: Session, name: str, generation: int, version_id: str) -> bool:
    """Whether a deployment had this target at this generation."""
    query = select(RevisionRow.version_id).join(DeploymentRow, RevisionRow.deployment_id == DeploymentRow.id)
    return session.scalar(query.where(_named(session, name), RevisionRow.generation == generation)) == version_id


def _named(session: Session, name: str) -> ColumnElement[bool]:
    workspace, bare = parted(name, workspace_of(session))
    return (DeploymentRow.workspace == workspace) & (DeploymentRow.name == bare)


def _servable(session: Session, target: str) -> VersionRow:
    try:
        version = models.resolve(session, target)
    except NotFound as error:
        raise Invalid.at("/target", error.code, str(error)) from None
    if version.status != "ready":
        reason = (version.problem or {}).get("detail", "wait until it is")
        raise Invalid.at(
            "/target", "version_not_ready", f"expected a ready version, got {version.ref}: {version.status}; {reason}"
        )
    return version


def _last_good(session: Session, deployment_id: str, before: int) -> RevisionRow | None:
    """The newest earlier revision that was not refused, and of which nothing was purged."""
    earlier = select(RevisionRow.generation).where(
        RevisionRow.deployment_id == deployment_id, RevisionRow.generation < before, RevisionRow.refused.is_(False)
    )
    for generation in session.scalars(earlier.order_by(RevisionRow.generation.desc())).all():
        good = session.get_one(RevisionRow, (deployment_id, generation))
        with suppress(NotFound):
            archive.hold(session, good.version, *(a.module for a in good.attachments))
            return good
    return None


def _check_live(session: Session, version: VersionRow) -> None:
    """See that a version may come to be served."""
    archive.hold(session, version)
    problems = list(models.archived_problems("/target", version))
    if problems:
        raise Invalid(problems)


def _check_whole(session: Session, earlier: RevisionRow, current: RevisionRow) -> None:
    """See that everything of an earlier revision may be served again."""
    rows: tuple[Archivable, ...] = (earlier.version, *(a.module for a in earlier.attachments))
    wanted = {row.id: row for row in rows}
    archive.hold(session, *wanted.values())
    served = {current.version_id, *(a.module_id for a in current.attachments)}
    for row in (row for row in wanted.values() if row.id not in served):
        archive.check_live(row)


def _locked(session: Session, name: str, if_match: int | None) -> DeploymentRow:
    row = get(session, name, lock=True)
    _check_generation(name, row, if_match)
    return row


def _check_generation(name: str, row: DeploymentRow | None, if_match: int | None) -> None:
    have = None if row is None or row.deleted_at is not None else row.generation
    if if_match is not None and if_match != have:
        raise StaleRevision(f"{name}: expected generation {if_match} (If-Match), got {have}; read it again and retry")


def _check_bare(name: str, current: RevisionRow) -> None:
    if current.attachments:
        ids = ", ".join(a.module_id for a in current.attachments)
        raise Conflict(f"{name}: expected no modules when the target changes, got {ids}; detach them first")


def _check_fits(session: Session, version: VersionRow, attached: Sequence[ModuleRow], module: ModuleRow) -> None:
    """Whether a module may be attached beside others."""
    _check_target(version, module)
    _check_classes(version, attached, module)
    signatures.check_required(session, module)


def _check_target(version: VersionRow, module: ModuleRow) -> None:
    if module.target_fingerprint != version.fingerprint:
        raise TargetMismatch(
            f"{module.id}: expected a target with fingerprint {module.target_fingerprint} "
            f"({module.target_ref}), got {version.fingerprint} ({version.ref}); clone again for this target"
        )


def _check_classes(version: VersionRow, attached: Sequence[ModuleRow], module: ModuleRow) -> None:
    taken = dict.fromkeys(version.spec["classes"], version.ref)
    taken |= {name: other.id for other in attached for name in other.classes}
    both = {name: taken[name] for name in module.classes if name in taken}
    if both:
        where = ", ".join(f"{name!r} of {owner}" for name, owner in both.items())
        raise ClassCollision(f"{module.id}: expected classes that are not served yet, got {where}; detach that first")


def _publish(session: Session, row: DeploymentRow, version_id: str, module_ids: Sequence[str]) -> None:
    row.generation += 1
    attachments = [AttachmentRow(module_id=m, ordinal=i) for i, m in enumerate(module_ids)]
    session.add(
        RevisionRow(deployment_id=row.id, generation=row.generation, version_id=version_id, attachments=attachments)
    )
    session.flush()

    def told() -> dict[str, Any]:
        target = session.get_one(VersionRow, version_id).ref
        return {"deployment": row.name, "generation": row.generation, "modules": [*module_ids], "target": target}

    outbox.post(session, row.workspace, "deployment.changed", told)


def _take_away(session: Session, row: DeploymentRow) -> None:
    row.deleted_at = clock.now(session)
    told = {"deployment": row.name, "generation": row.generation}
    outbox.post(session, row.workspace, "deployment.deleted", lambda: told)


def _contents(row: RevisionRow) -> tuple[str, list[str]]:
    return row.version_id, [a.module_id for a in row.attachments]
