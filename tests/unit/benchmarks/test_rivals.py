import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.arena import Answer, Arena, Record, compete, numbers
from benchmarks.data import load
from benchmarks.rivals import RIVALS, TUNED
from benchmarks.training import Recipe, recalibrate
from benchmarks.zipit import Zipped
from benchmarks.zoo import train_or_load
from pnc_core.analysis.evaluation import direct_ensembles
from pnc_core.graph.architectures import build_network
from pnc_core.identity import fingerprint
from pnc_core.images import preprocess
from tests.unit.pnc_core import nets

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Digits: narrow networks for five classes each, a fifth of the images, and one view of them for the heads."""
    split = load("digits", None, 0)
    split = replace(split, suite=replace(split.suite, width=8, images=2500, zoo_epochs=5))
    folder: Path = tmp_path_factory.mktemp("zoo")
    recipe = Recipe(epochs=8, augment="shift", precision="float32")
    target, source = (train_or_load(split, classes, folder, recipe) for classes in (split.target, split.source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.arena.VIEWS", 1)
        patch.setattr("benchmarks.rivals.FISHER_IMAGES", 50)
        patch.delitem(TUNED, "digits")  # rates that were chosen for a budget twelve times as large
        patch.setattr("benchmarks.zipit.STATISTICS_IMAGES", 10_000)  # all there are
        yield Arena(split, target, source, fraction=0.2, precision="float32")


class Once:
    """Lets every rival compete once, and keeps answer, record and the networks' fingerprints afterwards."""

    def __init__(self, arena: Arena) -> None:
        self._arena, self._kept = arena, {}

    def __call__(self, method: str) -> tuple[Answer, Record, list[str]]:
        if method not in self._kept:
            answers: list[Answer] = []
            record = compete(self._arena, method, _noting(RIVALS[method], answers))
            after = [fingerprint(network) for network, _ in (self._arena.target, self._arena.source)]
            self._kept[method] = (answers[0], record, after)
        return self._kept[method]


def _noting(rival: Callable[[Arena], Answer], answers: list[Answer]) -> Callable[[Arena], Answer]:
    def noted(arena: Arena) -> Answer:
        answers.append(rival(arena))
        return answers[0]

    return noted


@pytest.fixture(scope="module")
def before(arena: Arena) -> list[str]:
    return [fingerprint(network) for network, _ in (arena.target, arena.source)]


@pytest.fixture(scope="module")
def once(arena: Arena, before: list[str]) -> Once:
    return Once(arena)


@pytest.mark.parametrize("method", RIVALS)
def test_a_rival_answers_for_every_image_and_class(method: str, arena: Arena, once: Once) -> None:
    answer, record, _ = once(method)
    assert answer.logits().shape == (len(arena.test), arena.old + arena.new)
    assert answer.logits().dtype == torch.float32
    assert not answer.logits().isnan().any()
    assert 0 <= answer.images_used <= (len(arena.split.sample(1.0)) if method == "joint_100" else len(arena.images))
    assert 0 < record.macs_ratio <= 2.1
    assert record.avg == pytest.approx((record.old + record.new) / 2)


@pytest.mark.parametrize("method", RIVALS)
def test_a_rival_leaves_both_networks_as_they_are(method: str, before: list[str], once: Once) -> None:
    assert once(method)[2] == before


@pytest.mark.slow
@pytest.mark.parametrize("method", RIVALS)
def test_the_same_seed_gives_the_same_record(method: str, arena: Arena, once: Once) -> None:
    torch.manual_seed(torch.randint(1000, ()).item())  # what others draw does not matter
    again = compete(arena, method, RIVALS[method])
    assert replace(again, seconds=0) == replace(once(method)[1], seconds=0)


def test_another_seed_gives_other_answers(arena: Arena, once: Once) -> None:
    other = RIVALS["finetune"](replace(arena, seed=1))
    assert not torch.equal(other.logits(), once("finetune")[0].logits())


def test_the_target_alone_never_says_a_new_class(once: Once) -> None:
    _, record, _ = once("target_only")
    assert (record.new, record.locality, record.size_ratio, record.images_used) == (0, 1, 0, 0)
    assert record.old > 0.9


def test_fine_tuning_on_new_images_forgets_and_lwf_forgets_less(once: Once) -> None:
    forgetful, careful, best = (once(method)[1] for method in ("finetune_new", "lwf_new", "lwf"))
    assert forgetful.old < 0.1
    assert careful.old > forgetful.old + 0.3
    assert best.old > careful.old
    assert once("ewc")[1].locality > forgetful.locality + 0.3


@pytest.mark.parametrize("method", ["linear_probe", "ensemble_joint", "finetune", "lwf", "memo", "joint_100"])
def test_rivals_that_see_both_sides_learn_both(method: str, once: Once) -> None:
    _, record, _ = once(method)
    assert min(record.old, record.new) > 0.7


@pytest.mark.parametrize("kind", ["raw", "softmax"])
def test_direct_ensembles_are_the_library_s(kind: str, arena: Arena, once: Once) -> None:
    expected = direct_ensembles(arena.target, arena.source, arena.split.cloned, arena.split.test)[kind]
    _, record, _ = once(f"ensemble_{kind}")
    assert (record.old, record.new, record.locality) == (expected.old, expected.new, expected.locality)


def test_sizes_count_what_is_stored_beside_the_target(arena: Arena, once: Once) -> None:
    whole, row = numbers(arena.source[0]), arena.source[0].fc.in_features + 1
    assert once("ensemble_raw")[0].numbers == whole
    assert once("lwf")[0].numbers == whole + arena.new * row
    assert once("linear_probe")[0].numbers < 0.5 * whole
    assert once("memo")[0].numbers < whole


def test_old_and_new_images_weigh_half_each(arena: Arena) -> None:
    images = arena.images.take(torch.nonzero(arena.images.labels != 0).flatten())
    uneven = copy.copy(arena)
    uneven.__dict__["images"] = images
    total = uneven.balance[images.labels]
    is_new = images.labels >= arena.old
    assert float(total[is_new].sum()) == pytest.approx(float(total[~is_new].sum()))


def test_the_budget_is_images_and_not_epochs(arena: Arena) -> None:
    for fraction in (0.1, 0.2, 0.3):
        images = arena.split.sample(fraction)
        seen = arena.recipe(images, 0.1, 5e-4).epochs * len(images)
        assert seen == pytest.approx(arena.split.suite.images, rel=0.1)
    assert arena.recipe(arena.images.take(torch.arange(3)), 0.1, 5e-4).epochs == 60
    assert arena.recipe(arena.split.sample(1.0), 0.1, 5e-4).epochs == 5


@pytest.mark.parametrize("architecture", ["cnn", "resnet20"])
def test_a_network_merged_with_itself_is_itself(architecture: str, arena: Arena) -> None:
    spec = replace(arena.target[1], architecture=architecture, options={"width": 4})
    torch.manual_seed(0)
    network = nets.randomised(build_network(spec))
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.bias.data.add_(1)  # a channel that is always zero cannot tell which one it is
    recalibrate(network, spec, arena.images)
    pair = replace(arena, target=(network, spec), source=(network, replace(spec, classes=arena.source[1].classes)))
    x = preprocess(arena.test.images[:50], spec)
    old, own = Zipped(pair)(x)
    torch.testing.assert_close(old, network(x), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(own, old[:, pair.cloned], atol=1e-3, rtol=1e-3)
