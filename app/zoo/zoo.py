"""What a process holds open: settings, database, object store and the place for unfinished uploads."""

from dataclasses import dataclass
from pathlib import Path

from app.zoo.bell import CeleryBell
from app.zoo.db import Database
from app.zoo.settings import Settings
from app.zoo.store import DirectoryStore, Store


@dataclass(frozen=True)
class Zoo:
    """An open zoo; close it at the end of the process."""

    settings: Settings
    database: Database
    store: Store
    staging: Path
    """Directory of unfinished uploads."""

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def open_zoo(settings: Settings) -> Zoo:
    """Open database and store, making their directories; the schema is `db.migrate`'s business.

    Raises:
        ValueError: the store's address is not a directory.
    """
    if "://" in settings.store_url:
        raise ValueError(f"PNC_STORE_URL: expected a directory, got {settings.store_url!r}")
    staging = settings.data_dir / "uploads"
    staging.mkdir(parents=True, exist_ok=True)
    store = DirectoryStore(Path(settings.store_url))
    bell = CeleryBell(settings.broker_url) if settings.broker_url else None
    return Zoo(settings, Database(settings.database_url, bell), store, staging)
