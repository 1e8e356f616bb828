from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.zoo.zoo import Zoo


@pytest.fixture
def session(zoo: Zoo) -> Iterator[Session]:
    """One writing transaction on it."""
    with zoo.database.write() as session:
        yield session


@pytest.fixture
def empty_database_url(tmp_path: Path) -> str:
    """A database without schema."""
    return f"sqlite:///{tmp_path}/new.db"
