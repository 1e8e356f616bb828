import dataclasses

import pytest
import torch

from pnc_core.analysis.residue import FOLDS, Residue, _rank, _recognised, _sign_test, residue
from pnc_core.errors import DataError
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.module.bundle import Bundle
from tests.unit.pnc_core.conftest import Pair


@pytest.fixture(scope="module")
def found(pair: Pair, _by_hand: dict[str, Bundle]) -> Residue:
    return residue(pair.target, pair.source, _by_hand["router"], pair.test)


def test_classes_that_were_not_cloned_are_probed_on_equally_many_images(found: Residue, pair: Pair) -> None:
    assert found.classes == ("5", "7", "8", "9")
    fewest = int(torch.bincount(pair.test.only(found.classes).labels).min())
    assert found.images == fewest // FOLDS * FOLDS
    assert found.chance == pytest.approx(1 / 4)


def test_the_source_is_read_best_and_every_probe_beats_guessing(found: Residue) -> None:
    assert found.source.accuracy > 0.9
    for name in ("target", "module", "together", "slices"):
        reading = getattr(found, name)
        assert found.chance < reading.accuracy <= found.source.accuracy + 0.05
        assert 0 <= reading.spread < 0.5
    assert found.added == pytest.approx(found.together.accuracy - found.target.accuracy)


def test_the_null_distribution_is_of_several_draws(found: Residue) -> None:
    assert found.random.spread > 0
    assert 1 / 20 <= found.p_random <= 1
    assert 0 <= found.p_added <= 1


def test_draws_with_as_many_right_images_are_ties_in_whatever_order_the_folds_are() -> None:
    counts = ([1, 3, 0, 0, 3], [3, 0, 3, 1, 0], [0, 3, 1, 3, 0], [3, 3, 1, 0, 0])
    answers = [torch.arange(3)[None, :] < torch.tensor(row)[:, None] for row in counts]
    assert (
        len({float(right.double().mean(1).mean()) for right in answers}) > 1
    )  # so means over folds cannot be compared exactly
    for own in answers:
        assert _rank(own, answers) == 1
    assert _rank(torch.zeros(5, 3), answers) == 1 / 5


def test_networks_are_left_alone_and_equal_seeds_answer_alike(
    pair: Pair, by_hand: dict[str, Bundle], found: Residue
) -> None:
    before = fingerprint(pair.target[0]), fingerprint(pair.source[0])
    assert residue(pair.target, pair.source, by_hand["router"].thin(), pair.test) == found
    assert (fingerprint(pair.target[0]), fingerprint(pair.source[0])) == before


def test_a_probe_reads_what_is_there_and_nothing_from_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(100)
    noise = torch.randn(300, 40, generator=generator)
    assert _recognised(noise, labels, 3).double().mean() == pytest.approx(1 / 3, abs=0.12)  # four standard errors
    told = noise.clone()
    told[:, 7] = labels.float() * 10 + noise[:, 7]
    told[:, 8] = (labels == 1) * 10.0 + noise[:, 8]
    assert _recognised(told, labels, 3).double().mean() > 0.95


def test_an_image_is_never_judged_by_a_probe_that_learned_from_it() -> None:
    # One feature per image: it reveals the label of a training image only.
    labels = torch.arange(2).repeat(50)
    right = _recognised(torch.eye(100), labels, 2)
    assert right.double().mean() == pytest.approx(0.5, abs=0.2)


def test_the_sign_test_is_the_binomial_s_tail() -> None:
    more, less = torch.tensor([1, 1, 1, 0, 1, 0]).bool(), torch.tensor([1, 0, 0, 1, 0, 0]).bool()
    assert _sign_test(more, less) == pytest.approx(5 / 16)  # P(at least 3 of 4 tosses)
    assert _sign_test(less, less) == 1


def test_one_class_that_was_left_out_is_not_enough(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    cloned = by_hand["router"]
    with pytest.raises(DataError, match="two classes of the source that were not cloned"):
        residue(pair.target, pair.source, cloned, pair.test.only(("0", "5", "6")))
    few = ImageSet(pair.test.images[:3], torch.tensor([5, 7, 7]), pair.test.classes)
    with pytest.raises(DataError, match="add some"):
        residue(pair.target, pair.source, cloned, few)


def test_the_numbers_are_plain_values(found: Residue) -> None:
    assert dataclasses.asdict(found)["module"]["accuracy"] == found.module.accuracy
