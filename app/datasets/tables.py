"""Table of datasets."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from app.db.clock import utc_now
from app.db.tables import Archivable, Base, Owned
from app.store.object_locks import hold_named


class DatasetRow(Archivable, Owned, Base):
    """Images in one Parquet file."""

    __tablename__ = "datasets"

    name: Mapped[str]
    digest: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(index=True)
    rows: Mapped[int] = mapped_column(BigInteger)
    classes: Mapped[list[str]]
    """Class names in the order of the labels; empty: the images have none."""
    counts: Mapped[dict[str, int]]
    """Images of each class."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now())


hold_named(DatasetRow)
