"""Checks of a change before a deployment takes it: the target, the modules and the generation."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.db import archive
from app.db.tables import Archivable
from app.deployments.tables import DeploymentRow, RevisionRow
from app.errors import ClassCollision, Conflict, Invalid, NotFound, StaleRevision, TargetMismatch
from app.models import service as models
from app.models.tables import VersionRow
from app.modules import signatures
from app.modules.tables import ModuleRow


def servable(session: Session, target: str) -> VersionRow:
    """The version that a reference names.

    Args:
        session: A session of the workspace.
        target: `name@3`, `name@alias`, or `name`.

    Raises:
        Invalid: the reference names no version, or the version is not ready.
    """
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


def check_target_live(session: Session, version: VersionRow) -> None:
    """Check that a new target is not archived, and lock it against purging until this transaction commits.

    Raises:
        Invalid: the version or its model is archived.
        NotFound: the version was purged.
    """
    archive.hold(session, version)
    problems = list(models.archived_problems("/target", version))
    if problems:
        raise Invalid(problems)


def check_restorable(session: Session, earlier: RevisionRow, current: RevisionRow) -> None:
    """Check that the target and the modules of an earlier revision may be served again.

    An archived target or module is allowed only if the current revision contains it.

    Raises:
        Archived: the target or a module is archived, and the current revision does not contain it.
        NotFound: the target or a module was purged.
    """
    rows: tuple[Archivable, ...] = (earlier.version, *(a.module for a in earlier.attachments))
    needed = {row.id: row for row in rows}
    archive.hold(session, *needed.values())
    served = {current.version_id, *(a.module_id for a in current.attachments)}
    for row in (row for row in needed.values() if row.id not in served):
        archive.check_live(row)


def check_generation(name: str, row: DeploymentRow | None, if_match: int | None) -> None:
    """Check that a deployment has the generation that the caller expects.

    Args:
        name: Name of the deployment, for the error.
        row: The deployment; None if it does not exist.
        if_match: The expected generation; None skips the check.

    Raises:
        StaleRevision: the deployment has another generation, or does not exist.
    """
    have = None if row is None or row.deleted_at is not None else row.generation
    if if_match is not None and if_match != have:
        raise StaleRevision(f"{name}: expected generation {if_match} (If-Match), got {have}; read it again and retry")


def check_no_modules(name: str, current: RevisionRow) -> None:
    """Check that no module is attached and no canary runs: a module fits only the target it was cloned for.

    Raises:
        Conflict: modules are attached, or a canary runs.
    """
    if current.canary is not None:
        raise Conflict(f"{name}: expected no canary when the target changes, got one; end it first")
    if current.attachments:
        ids = ", ".join(a.module_id for a in current.attachments)
        raise Conflict(f"{name}: expected no modules when the target changes, got {ids}; detach them first")


def check_fits(session: Session, version: VersionRow, attached: Sequence[ModuleRow], module: ModuleRow) -> None:
    """Check that a module may be attached to a target beside other modules.

    Args:
        session: A session of the workspace.
        version: The target.
        attached: The other modules.
        module: The module to attach.

    Raises:
        TargetMismatch: the module was cloned for another target.
        ClassCollision: the target or another module has one of its classes.
        Unsigned: the workspace requires a trusted signature, and the module has none.
    """
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
    owners = dict.fromkeys(version.spec["classes"], version.ref)
    owners |= {name: other.id for other in attached for name in other.classes}
    both = {name: owners[name] for name in module.classes if name in owners}
    if both:
        where = ", ".join(f"{name!r} of {owner}" for name, owner in both.items())
        raise ClassCollision(
            f"{module.id}: expected classes that the deployment does not have yet, got {where}; detach that module "
            "first, or clone other classes"
        )
