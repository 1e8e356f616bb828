"""A wrong registration of a trained network is found and named; a right one gives no complaint."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pnc_core.analysis.check import _apart, check, find_scaling, measured
from pnc_core.errors import DataError
from pnc_core.graph.architectures import build_network, load_weights
from pnc_core.images import ImageSet
from pnc_core.preprocessing import Preprocessing
from tests.unit.pnc_core.stripes import CLASSES, RESIDUAL, SPEC, drawn, trained


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return trained(SPEC, 30)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return drawn(300, 1)


def test_a_right_registration_gives_no_complaint(plain: nn.Module, images: ImageSet) -> None:
    found = check(plain, SPEC, images)
    assert found.score.share > 0.95
    assert (found.is_suspect, found.cause) == (False, None)


MISTAKES = {
    "mean and std": ({"mean": (0.0,) * 3, "std": (1.0,) * 3}, "mean and std"),
    "order": ({"classes": ("k5", "k1", "k3", "k2", "k10", "k4")}, "another order of the classes"),
    "names": ({"classes": tuple(sorted(CLASSES))}, "classes in the order of the dataset"),
    "bgr": ({"preprocessing": Preprocessing(channel_order="bgr")}, "channel order rgb"),
    "range": ({"preprocessing": Preprocessing(value_range="0..255")}, "value range 0..1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_and_named(plain: nn.Module, images: ImageSet, mistake: str) -> None:
    changes, title = MISTAKES[mistake]
    if mistake == "order":
        images = images.only(tuple(reversed(CLASSES)))  # the order of the dataset is another one as well
    found = check(plain, replace(SPEC, **changes), images)
    assert found.cause is not None
    assert found.cause.title.startswith(title)
    assert found.cause.after.share > 0.9


@pytest.mark.always
def test_a_wrong_shortcut_is_found_and_named(images: ImageSet) -> None:
    network = trained(RESIDUAL, 6)
    wrong = replace(RESIDUAL, options={"width": 8, "shortcut": "pad-end"})
    assert check(network, RESIDUAL, images).cause is None
    found = check(load_weights(build_network(wrong), network.state_dict()), wrong, images)
    assert found.cause is not None
    assert (found.cause.title, found.cause.changes) == (
        "shortcut=pad-both",
        {"options": {"width": 8, "shortcut": "pad-both"}},
    )


def test_two_mistakes_are_found_one_on_top_of_the_other(plain: nn.Module, images: ImageSet) -> None:
    wrong = replace(SPEC, classes=tuple(sorted(CLASSES)), preprocessing=Preprocessing(value_range="0..255"))
    cause = check(plain, wrong, images).cause
    assert cause is not None
    assert set(cause.changes) == {"classes", "preprocessing"}
    assert cause.after.share > 0.9


def test_no_order_is_named_from_few_images(plain: nn.Module) -> None:
    few = drawn(6 * 12, 2).only(tuple(reversed(CLASSES)))  # six of each class in each half
    found = check(plain, replace(SPEC, classes=("k5", "k1", "k3", "k2", "k10", "k4")), few)
    assert (found.near_chance, found.cause) == (True, None)


def test_a_network_that_learned_nothing_is_near_chance_without_a_cause(images: ImageSet) -> None:
    torch.manual_seed(1)
    mixed = ImageSet(images.images, images.labels[torch.randperm(len(images))], CLASSES)
    found = check(build_network(SPEC), SPEC, mixed)
    assert (found.near_chance, found.cause, found.is_suspect) == (True, None, True)


def test_the_search_keeps_to_its_limit(plain: nn.Module, images: ImageSet) -> None:
    found = check(plain, replace(SPEC, mean=(0.0,) * 3, std=(1.0,) * 3), images, max_macs=1.0)
    assert (found.tried, found.cause, found.near_chance) == (0, None, True)


def test_an_unknown_scaling_is_found(plain: nn.Module, images: ImageSet) -> None:
    found = find_scaling(plain, replace(SPEC, mean=(0.0,) * 3, std=(1.0,) * 3), images)
    assert (found.spec.mean, found.spec.std) == (SPEC.mean, SPEC.std)
    assert found.score.share > 0.95
    assert found.spec.preprocessing == SPEC.preprocessing


def test_few_images_give_no_scaling(plain: nn.Module) -> None:
    with pytest.raises(DataError, match=r"expected at least 50 .*, got 48"):
        find_scaling(plain, SPEC, drawn(48, 3))


def test_images_of_other_classes_are_refused(plain: nn.Module, images: ImageSet) -> None:
    other = ImageSet(images.images, images.labels, tuple("abcdef"))
    with pytest.raises(DataError, match="give the classes the same names"):
        check(plain, SPEC, other)
    assert measured(plain, SPEC, other, 100) is None


def test_a_sample_is_balanced(plain: nn.Module, images: ImageSet) -> None:
    uneven = images.take(torch.cat([torch.nonzero(images.labels == 0).flatten(), torch.arange(12)]))
    score = measured(plain, SPEC, uneven, 18)
    assert score is not None
    assert score.images == 18


def test_more_images_measure_the_chosen_variant_than_choose_it(plain: nn.Module) -> None:
    images = drawn(900, 1)
    first, second = _apart(images, 500, 2000)
    assert (len(first), len(second)) == (252, 648)
    assert torch.equal(torch.cat([first.labels, second.labels]).bincount(), images.labels.bincount())
    found = check(plain, replace(SPEC, mean=(0.0,) * 3, std=(1.0,) * 3), images)
    assert found.cause is not None
    assert found.cause.after.images == 648
