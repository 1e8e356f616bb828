import pytest
import torch

from pnc_core.analysis.evaluation import evaluate
from pnc_core.errors import DataError, MismatchError
from pnc_core.images import ImageSet
from pnc_core.method.composing.compose import compose
from pnc_core.method.composing.extend import Online, extend, ridge_of
from pnc_core.method.composing.ridge import Sums
from pnc_core.module.composed import attach
from pnc_core.module.composition import Composition, module_digest
from tests.unit.pnc_core.conftest import Pair
from tests.unit.pnc_core.method.composing.conftest import Set


@pytest.fixture(scope="module")
def extended(pair: Pair, both: Set, first: Composition, step: ImageSet) -> Composition:
    return extend(pair.target, both.bundles, first, step)


def test_the_extended_ridge_head_is_that_of_all_images(
    pair: Pair, both: Set, first: Composition, extended: Composition
) -> None:
    """Both steps' images at once, on the standardisation of the first step."""
    online = Online(pair.target, both.bundles, extended)
    used = both.images.only(extended.manifest.classes).without_copies()
    features, start = online.features(used), ridge_of(first).sums
    empty = Sums(start.mean, start.spread, start.gram * 0, start.cross.new_zeros(len(start.cross), 7))
    prior = ridge_of(first).prior
    joint, found = empty.of(features, used.labels).solve(prior), ridge_of(extended).sums.solve(prior)
    assert float((found - joint).norm() / joint.norm()) < 1e-8
    assert extended.manifest.ridge is not None
    assert extended.manifest.ridge.images == len(used)


def test_an_extension_keeps_numbers_that_need_old_images(
    pair: Pair, both: Set, first: Composition, extended: Composition
) -> None:
    earlier, later = (module_digest(bundle) for bundle in both.bundles)
    assert extended.balance_of(earlier) == first.balance_of(earlier)
    assert extended.balance_of(later) == (1.0, 0.0)
    assert (extended.manifest.origin, extended.manifest.verdict) == ("extended", None)
    plain, composed = attach(pair.target[0], both.bundles), attach(pair.target[0], both.bundles, composition=extended)
    assert evaluate(composed, pair.test).average > evaluate(plain, pair.test).average + 0.2


def test_an_extension_needs_sums_enough_images_and_all_modules(
    pair: Pair, both: Set, first: Composition, step: ImageSet
) -> None:
    with pytest.raises(DataError, match="show no single image"):
        extend(pair.target, both.bundles, first, step.take(torch.arange(20)))
    with pytest.raises(DataError, match="got none"):
        extend(pair.target, both.bundles, first, pair.images.only(("0", "1")))
    with pytest.raises(MismatchError, match="got none for"):
        extend(pair.target, both.bundles[1:], first, step)
    joint = compose(pair.target, both.bundles[:1], both.images, head="joint")
    with pytest.raises(MismatchError, match="joint"):
        extend(pair.target, both.bundles, joint, step)
    few = compose(pair.target, both.bundles[:1], both.images, most_features=1)
    with pytest.raises(MismatchError, match="expected one with sums"):
        extend(pair.target, both.bundles, few, step)


def test_a_thousand_rows_one_by_one_equal_the_batch_fit(pair: Pair, both: Set, extended: Composition) -> None:
    online, ridge = Online(pair.target, both.bundles, extended), ridge_of(extended)
    width, generator = ridge.window.features, torch.Generator().manual_seed(0)
    rows = ridge.sums.mean + ridge.sums.spread * torch.randn(1000, width, generator=generator).double() * 2
    labels = torch.randint(7, (1000,), generator=generator)
    for row, label in zip(rows, labels.tolist(), strict=True):
        online.update(row, label)
    batch = (ridge.sums + ridge.sums.of(rows, labels)).solve(ridge.prior)
    assert (online.weights - batch).abs().max() < 1e-5 * batch.abs().max()
    written = online.composition()
    assert torch.allclose(ridge_of(written).sums.solve(ridge.prior), batch, rtol=1e-9, atol=1e-12)
    assert written.manifest.origin == "updated"
    assert online.rows.tolist() == torch.bincount(labels, minlength=7).tolist()


def test_few_rows_change_the_head_and_are_not_written(pair: Pair, both: Set, extended: Composition) -> None:
    online = Online(pair.target, both.bundles, extended)
    before = online.weights
    assert online.learn(pair.test.only(("7", "9")).take(torch.arange(5))) == 5
    assert not torch.allclose(online.weights, before)
    with pytest.raises(DataError, match="show no single image"):
        online.composition()
    with pytest.raises(DataError, match="a label from 0 to 6"):
        online.update(torch.zeros(32), 7)


def test_only_a_ridge_head_is_updated(pair: Pair, both: Set, fitted: Composition, first: Composition) -> None:
    with pytest.raises(MismatchError, match="ridge head"):
        Online(pair.target, both.bundles, fitted)
    with pytest.raises(MismatchError, match="exactly these modules"):
        Online(pair.target, both.bundles, first)
