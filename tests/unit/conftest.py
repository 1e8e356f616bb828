from collections.abc import Iterator
from pathlib import Path

import pytest

from app.zoo.zoo import Zoo
from tests.unit.zoo import seeds


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[Zoo]:
    """An empty zoo with its schema made by the migrations."""
    zoo = seeds.new_zoo(tmp_path)
    yield zoo
    zoo.close()
