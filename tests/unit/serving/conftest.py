from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.serving import world
from tests.unit.serving.world import World


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A zoo with real networks, for one file of tests."""
    made = world.make(tmp_path_factory.mktemp("zoo"))
    yield made
    made.zoo.close()


@pytest.fixture(scope="module")
def url(here: World) -> Iterator[str]:
    """Its serving process, on a socket."""
    with world.serving(here.zoo.settings) as (address, _):
        yield address


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    """The same for one test."""
    made = world.make(tmp_path)
    yield made
    made.zoo.close()
