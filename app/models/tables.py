"""Tables of models."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint, cast, select, text
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship

from app.db.clock import utc_now
from app.db.tables import SHOWN, Archivable, Base, Document, Json, Leased, Owned, one_of
from app.store.object_locks import hold_named

VERSION_STATUSES = ("validating", "ready", "rejected")
_WAITING = text("checking IS NOT NULL")


class ModelRow(Archivable, Owned, Base):
    """A registered network, as a name for its versions."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("workspace", "name"),)

    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    last_version: Mapped[int] = mapped_column(default=0)
    clonable: Mapped[list[str] | None] = mapped_column(Json)
    """Classes that jobs may clone from it; none: all of them."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    aliases: Mapped[list["AliasRow"]] = relationship(lazy="selectin", order_by="AliasRow.alias", viewonly=True)


class VersionRow(Leased, Archivable, Owned, Base):
    """One immutable set of weights with everything needed to rebuild the network."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        one_of("status", VERSION_STATUSES),
        Index(None, "status", "id"),
        Index("ix_model_versions_checking", "id", postgresql_where=_WAITING, sqlite_where=_WAITING),
    )

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    status: Mapped[str] = mapped_column(default="validating")
    spec: Mapped[Document]
    licence: Mapped[str] = mapped_column(default="")
    origin: Mapped[Document | None]
    """Place that the weights were imported from, as `pnc_client.schemas.models.Origin` has it."""
    digest: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(index=True)
    fingerprint: Mapped[str | None]
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    macs: Mapped[int | None] = mapped_column(BigInteger)
    accuracy: Mapped[float | None]
    """Share of images that it names right, once a worker has measured it; see `app.models.service.note_accuracy`."""
    accuracy_images: Mapped[int | None]
    accuracy_dataset: Mapped[str | None]
    """Id of the dataset that these images are from; it may be purged by now."""
    checking: Mapped[str | None]
    """Id of the dataset on whose images a worker has to check the version; see `app.models.checks`."""
    check: Mapped[Document | None] = mapped_column("check_result")
    """Result of the newest check, a `pnc_client.schemas.checks.VersionCheck`."""
    problem: Mapped[Document | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now())
    model: Mapped[ModelRow] = relationship(lazy="selectin")

    @property
    def is_waiting(self) -> bool:
        """Whether a worker can claim it, now or later."""
        row = vars(self)
        return row.get("lease_worker") is None and (
            row.get("status") == "validating" or row.get("checking") is not None
        )

    @property
    def ref(self) -> str:
        """The name people use: `mnist-low@3`."""
        return f"{self.model.name}@{self.number}"


def ref_of(version_id: Mapped[str]) -> Mapped[str]:
    """`VersionRow.ref` of a version that a row names, without the version: two rows looked up, nothing joined."""
    version, model = VersionRow.__table__.alias(), ModelRow.__table__.alias()
    ref = model.c.name + "@" + cast(version.c.number, String)
    found = select(ref).where(version.c.id == version_id, model.c.id == version.c.model_id).scalar_subquery()
    return column_property(found, deferred=True, group=SHOWN, expire_on_flush=False)


class AliasRow(Base):
    """A movable name of a version, such as `production`."""

    __tablename__ = "aliases"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now(), onupdate=utc_now())
    version: Mapped[VersionRow] = relationship(lazy="selectin")


hold_named(VersionRow)
