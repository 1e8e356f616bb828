"""Table of datasets."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.clock import utc_now
from app.db.tables import Archivable, Base, Document, Leased, Owned, one_of
from app.store.object_locks import hold_named

Raw = bytes
"""The type, which the column `bytes` hides inside the class."""
INSPECTIONS = ("waiting", "done", "failed")
WAITING = text("inspection = 'waiting'")


class DatasetRow(Archivable, Leased, Owned, Base):
    """Images in one Parquet file. A worker leases it to decode every image once."""

    __tablename__ = "datasets"
    __table_args__ = (
        one_of("inspection", INSPECTIONS),
        Index("ix_datasets_inspection", "id", postgresql_where=WAITING, sqlite_where=WAITING),
    )

    name: Mapped[str]
    digest: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(index=True)
    rows: Mapped[int] = mapped_column(BigInteger)
    classes: Mapped[list[str]]
    """Class names in the order of the labels; empty: the images have none."""
    counts: Mapped[dict[str, int]]
    """Images of each class; after the inspection only those that can be decoded."""
    inspection: Mapped[str] = mapped_column(default="waiting", server_default="waiting")
    inspected: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Rows that were looked at."""
    unreadable: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Rows whose image cannot be decoded."""
    findings: Mapped[Document | None]
    """Result of the inspection: duplicates, sizes and warnings; see `app.datasets.inspections`."""
    problem: Mapped[Document | None]
    """Why the inspection failed."""
    faults: Mapped[Raw | None] = mapped_column(LargeBinary, deferred=True)
    """Rows that cannot be decoded, with reasons: JSON, compressed with zlib."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())

    @property
    def is_waiting(self) -> bool:
        """Whether a worker can claim it, now or later."""
        row = vars(self)
        return row.get("lease_worker") is None and row.get("inspection") == "waiting"


class PartRow(Base):
    """Facts of consecutive images, kept until the inspection ends: another worker goes on after them."""

    __tablename__ = "dataset_parts"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    first: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """Number of the first row."""
    rows: Mapped[int]
    content: Mapped[bytes] = mapped_column(LargeBinary)


class SampleRow(Base):
    """Samples of one class, side by side in one picture."""

    __tablename__ = "dataset_samples"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    label: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Number of the class; -1: the dataset has no labels."""
    picture: Mapped[bytes] = mapped_column(LargeBinary)
    """WebP."""


hold_named(DatasetRow)
