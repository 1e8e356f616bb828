"""Tables of modules."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.clock import utc_now
from app.db.tables import Archivable, Base, Document, Owned, one_of
from app.models.tables import VersionRow, ref_of
from app.store.object_locks import hold_named


class ModuleRow(Archivable, Owned, Base):
    """A module. A job publishes at most one."""

    __tablename__ = "modules"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    target_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    source_version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    target_fingerprint: Mapped[str] = mapped_column(index=True)
    classes: Mapped[list[str]]
    manifest: Mapped[Document]
    evidence: Mapped[Document | None] = mapped_column(deferred=True)
    """Measurements on the job's held-out images; loaded only on access."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    target_version: Mapped[VersionRow] = relationship(foreign_keys=target_version_id, lazy="selectin")
    source_version: Mapped[VersionRow] = relationship(foreign_keys=source_version_id, lazy="selectin")
    bundles: Mapped[list["BundleRow"]] = relationship(lazy="selectin", order_by="BundleRow.payload")
    target_ref: Mapped[str] = ref_of(target_version_id)
    source_ref: Mapped[str] = ref_of(source_version_id)


class BundleRow(Base):
    """One bundle of a module: a file in the store."""

    __tablename__ = "bundles"
    __table_args__ = (one_of("payload", ("thin", "full")),)

    module_id: Mapped[str] = mapped_column(ForeignKey("modules.id"), primary_key=True)
    payload: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(index=True)


class TrustedKeyRow(Owned, Base):
    """A public key that a workspace trusts."""

    __tablename__ = "trusted_keys"
    __table_args__ = (UniqueConstraint("workspace", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    key: Mapped[str]
    """`ed25519:` and 64 hexadecimal digits."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())


class SignatureRow(Owned, Base):
    """The signature of a module."""

    __tablename__ = "signatures"

    module_id: Mapped[str] = mapped_column(ForeignKey("modules.id"), primary_key=True)
    key: Mapped[str]
    """Public key of the signer."""
    text: Mapped[str]
    """Content of the signature's file."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())


hold_named(BundleRow)
