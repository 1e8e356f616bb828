"""What a target can learn, from which source and on which images."""

import pytest

from app.jobs.asking import proposing
from app.models import service as models
from app.zoo import Zoo
from tests.unit import seeds


@pytest.fixture
def zoo_of_three(zoo: Zoo) -> Zoo:
    """A target, two models that know other digits, and images of all digits."""
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low", seeds.LOW, value=1)
        seeds.version(session, zoo, "high", seeds.HIGH, value=2).accuracy = 0.8
        seeds.version(session, zoo, "odd", ("7", "9", "nine lives"), value=3).accuracy = 0.9
        seeds.dataset(session, zoo)
        clouds = seeds.dataset(session, zoo)
        clouds.classes, clouds.counts = ["cloud"], {"cloud": 500}
    return zoo


def test_classes_of_all_models_but_the_targets_are_offered(zoo_of_three: Zoo) -> None:
    with zoo_of_three.database.read() as session:
        found, total = proposing.learnable(session, "low", (), "", 10)
        assert total == len(found) == 6
        assert {one.name: one.sources for one in found}["7"] == ["odd", "high"]
        found, total = proposing.learnable(session, "low", ("5",), "", 10)
        assert {one.name for one in found} == set(seeds.HIGH)
        assert [one.name for one in proposing.learnable(session, "low", (), "LIVES", 10)[0]] == ["nine lives"]
        assert proposing.learnable(session, "high", (), "7", 10) == ([], 0)
        assert proposing.learnable(session, "low", (), "", 2)[1] == 6


def test_a_class_is_found_by_its_name_in_any_model(zoo_of_three: Zoo) -> None:
    with zoo_of_three.database.read() as session:
        assert proposing.find(session, "low", "nine lives") == "nine lives"
        assert proposing.find(session, "low", "elephant") is None


def test_the_most_accurate_model_with_all_classes_is_proposed(zoo_of_three: Zoo) -> None:
    with zoo_of_three.database.read() as session:
        assert [row.model.name for row in proposing.sources(session, "low", ["7", "9"])] == ["odd", "high"]
        assert [row.model.name for row in proposing.sources(session, "low", ["7", "8"])] == ["high"]
        assert proposing.sources(session, "low", ["elephant"]) == []


def test_the_dataset_with_old_and_new_classes_is_proposed_not_the_newest(zoo_of_three: Zoo) -> None:
    with zoo_of_three.database.read() as session:
        target = models.resolve(session, "low")
        found = proposing.dataset(session, target, ["7", "8"])
        assert found is not None
        assert (found.old, found.new, found.is_complete) == (50, 20, True)
        assert proposing.dataset(session, target, ["elephant"]) is None


def test_an_archived_model_offers_nothing(zoo_of_three: Zoo) -> None:
    with zoo_of_three.database.write() as session:
        models.change(session, "odd", archived=True)
    with zoo_of_three.database.read() as session:
        assert proposing.find(session, "low", "nine lives") is None
