"""The desired state: the target and modules that the serving process must serve for each deployment."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload, lazyload, selectinload

from app.compositions.tables import CompositionRow
from app.db.isolation import parted, qualified
from app.deployments.tables import (
    AttachmentRow,
    CanaryModuleRow,
    CanaryRevisionRow,
    CanaryRow,
    DeploymentRow,
    RevisionRow,
)
from app.models import service as models
from app.models.tables import VersionRow
from app.modules.tables import ModuleRow
from pnc_core.config import NetworkSpec

IS_WANTED = (RevisionRow.deployment_id == DeploymentRow.id) & (RevisionRow.generation == DeploymentRow.generation)
"""Join condition between a deployment and its desired revision."""


@dataclass(frozen=True)
class DesiredModule:
    """A module that must be attached."""

    id: str
    digest: str
    """Digest of its full bundle."""
    key: str
    """Key of its full bundle in the store."""


@dataclass(frozen=True)
class DesiredComposition:
    """Numbers that the attached modules need together."""

    id: str
    digest: str
    """Digest of its file."""
    key: str
    """Key of its file in the store."""


@dataclass(frozen=True)
class DesiredCanary:
    """A second set of modules that must run on a share of the requests."""

    id: str
    """Id of its counts."""
    mode: str
    """`canary`: it answers the share. `shadow`: it runs on the share and answers nothing."""
    share: float
    modules: tuple[DesiredModule, ...]


@dataclass(frozen=True)
class DesiredDeployment:
    """The target and modules that the serving process must serve under a name."""

    name: str
    """Name that is unique among all workspaces: `name`, or `workspace/name` outside the default workspace."""
    generation: int
    version_id: str
    version: str
    """The version's reference for people, `name@number`."""
    spec: NetworkSpec
    weights_key: str
    weights_digest: str
    fingerprint: str
    modules: tuple[DesiredModule, ...]
    macs: int = 0
    """Multiply-accumulates of the target for one image, without modules."""
    canary: DesiredCanary | None = None
    composition: DesiredComposition | None = None
    """Of the attached modules; the modules of the canary have plain scales."""

    @property
    def needed(self) -> tuple[DesiredModule, ...]:
        """Attached modules, then those of the canary."""
        return self.modules + (() if self.canary is None else self.canary.modules)


_NEEDED = (
    lazyload("*"),
    joinedload(RevisionRow.version, innerjoin=True).joinedload(VersionRow.model, innerjoin=True),
    selectinload(RevisionRow.attachments).selectinload(AttachmentRow.module).selectinload(ModuleRow.bundles),
    joinedload(RevisionRow.composition),
    selectinload(RevisionRow.canary)
    .joinedload(CanaryRevisionRow.canary, innerjoin=True)
    .selectinload(CanaryRow.members)
    .selectinload(CanaryModuleRow.module)
    .selectinload(ModuleRow.bundles),
)
"""Loads only the relations that `_desired` uses, because each attach request waits for this query."""


def deployments(session: Session) -> list[DesiredDeployment]:
    """The desired state of all deployments, sorted by name."""
    query = (
        select(DeploymentRow, RevisionRow)
        .join(RevisionRow, IS_WANTED)
        .where(DeploymentRow.deleted_at.is_(None))
        .order_by(DeploymentRow.name)
        .options(*_NEEDED)
    )
    return [_desired(deployment, wanted) for deployment, wanted in session.execute(query)]


@dataclass(frozen=True)
class Mark:
    """A cheap summary of the desired state: equal marks mean that nothing has changed."""

    generations: tuple[tuple[str, int], ...]
    """Id and generation of each deployment, sorted."""
    newest_module: str | None
    """Id of the newest module, which might be loaded in advance."""


def mark(session: Session) -> Mark:
    """The mark of the desired state, from two indexes."""
    query = select(DeploymentRow.id, DeploymentRow.generation).where(DeploymentRow.deleted_at.is_(None))
    found = sorted((row, generation) for row, generation in session.execute(query))
    return Mark(tuple(found), session.scalar(select(func.max(ModuleRow.id))))


def attachable(session: Session, wanted: DesiredDeployment, most: int) -> list[DesiredModule]:
    """The newest modules that were cloned for a deployment's target, at most `most`; archived ones are left out."""
    workspace, _ = parted(wanted.name)
    query = select(ModuleRow).where(
        ModuleRow.workspace == workspace,
        ModuleRow.target_fingerprint == wanted.fingerprint,
        ModuleRow.archived_at.is_(None),
    )
    query = query.order_by(ModuleRow.id.desc()).limit(most).options(lazyload("*"), selectinload(ModuleRow.bundles))
    return [_desired_module(row) for row in session.scalars(query)]


def _desired(deployment: DeploymentRow, wanted: RevisionRow) -> DesiredDeployment:
    version = wanted.version
    return DesiredDeployment(
        name=qualified(deployment.workspace, deployment.name),
        generation=deployment.generation,
        version_id=version.id,
        version=version.ref,
        spec=models.spec_of(version),
        weights_key=version.key,
        weights_digest=version.digest,
        fingerprint=version.fingerprint or "",
        modules=tuple(_desired_module(a.module) for a in wanted.attachments),
        macs=version.macs or 0,
        canary=None if wanted.canary is None else _desired_canary(wanted.canary),
        composition=None if wanted.composition is None else _desired_composition(wanted.composition),
    )


def _desired_composition(row: CompositionRow) -> DesiredComposition | None:
    if row.key is None or row.digest is None:
        return None  # it was deleted after the deployment had taken another one
    return DesiredComposition(row.id, row.digest, row.key)


def _desired_canary(row: CanaryRevisionRow) -> DesiredCanary:
    modules = tuple(_desired_module(member.module) for member in row.canary.members)
    return DesiredCanary(row.canary_id, row.mode, row.share, modules)


def _desired_module(module: ModuleRow) -> DesiredModule:
    full = next(b for b in module.bundles if b.payload == "full")
    return DesiredModule(module.id, full.digest, full.key)
