from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from app.zoo.zoo import Zoo


@pytest.fixture
def session(zoo: Zoo) -> Iterator[Session]:
    """One writing transaction on it."""
    with zoo.database.write() as session:
        yield session
