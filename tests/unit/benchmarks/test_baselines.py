import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.comparison.baselines import BASELINES, TUNED
from benchmarks.comparison.data import load
from benchmarks.comparison.task import MethodOutput, Record, Task, numbers, run_method
from benchmarks.comparison.training import Recipe, recalibrate
from benchmarks.comparison.zipit import Zipped
from benchmarks.comparison.zoo import train_or_load
from pnc_core.analysis.evaluation import direct_ensembles
from pnc_core.graph.architectures import build_network
from pnc_core.identity import fingerprint
from pnc_core.images import preprocess
from tests.unit.pnc_core import nets

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    """Digits: narrow networks for five classes each, a fifth of the images, and one view of them for the heads."""
    split = load("digits", None, 0)
    split = replace(split, suite=replace(split.suite, width=8, images=2500, zoo_epochs=5))
    folder: Path = tmp_path_factory.mktemp("zoo")
    recipe = Recipe(epochs=8, augment="shift", precision="float32")
    target, source = (train_or_load(split, classes, folder, recipe) for classes in (split.target, split.source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.comparison.task.VIEWS", 1)
        patch.setattr("benchmarks.comparison.baselines.FISHER_IMAGES", 50)
        patch.delitem(TUNED, "digits")  # rates that were chosen for a budget twelve times as large
        patch.setattr("benchmarks.comparison.zipit.STATISTICS_IMAGES", 10_000)  # all there are
        yield Task(split, target, source, fraction=0.2, precision="float32")


class Once:
    """Lets every baseline run_method once, and keeps answer, record and the networks' fingerprints afterwards."""

    def __init__(self, task: Task) -> None:
        self._task, self._kept = task, {}

    def __call__(self, method: str) -> tuple[MethodOutput, Record, list[str]]:
        if method not in self._kept:
            answers: list[MethodOutput] = []
            record = run_method(self._task, method, _noting(BASELINES[method], answers))
            after = [fingerprint(network) for network, _ in (self._task.target, self._task.source)]
            self._kept[method] = (answers[0], record, after)
        return self._kept[method]


def _noting(baseline: Callable[[Task], MethodOutput], answers: list[MethodOutput]) -> Callable[[Task], MethodOutput]:
    def noted(task: Task) -> MethodOutput:
        answers.append(baseline(task))
        return answers[0]

    return noted


@pytest.fixture(scope="module")
def before(task: Task) -> list[str]:
    return [fingerprint(network) for network, _ in (task.target, task.source)]


@pytest.fixture(scope="module")
def once(task: Task, before: list[str]) -> Once:
    return Once(task)


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_answers_for_every_image_and_class(method: str, task: Task, once: Once) -> None:
    answer, record, _ = once(method)
    assert answer.logits().shape == (len(task.test_images), task.old_count + task.new_count)
    assert answer.logits().dtype == torch.float32
    assert not answer.logits().isnan().any()
    assert 0 <= answer.images_used <= (len(task.split.sample(1.0)) if method == "joint_100" else len(task.images))
    assert 0 < record.macs_ratio <= 2.1
    assert record.avg == pytest.approx((record.old + record.new) / 2)


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_leaves_both_networks_as_they_are(method: str, before: list[str], once: Once) -> None:
    assert once(method)[2] == before


@pytest.mark.slow
@pytest.mark.parametrize("method", BASELINES)
def test_the_same_seed_gives_the_same_record(method: str, task: Task, once: Once) -> None:
    torch.manual_seed(torch.randint(1000, ()).item())  # what others draw does not matter
    again = run_method(task, method, BASELINES[method])
    assert replace(again, seconds=0) == replace(once(method)[1], seconds=0)


def test_another_seed_gives_other_answers(task: Task, once: Once) -> None:
    other = BASELINES["finetune"](replace(task, seed=1))
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
def test_baselines_that_see_both_sides_learn_both(method: str, once: Once) -> None:
    _, record, _ = once(method)
    assert min(record.old, record.new) > 0.7


@pytest.mark.parametrize("kind", ["raw", "softmax"])
def test_direct_ensembles_are_the_library_s(kind: str, task: Task, once: Once) -> None:
    expected = direct_ensembles(task.target, task.source, task.split.cloned, task.split.test)[kind]
    _, record, _ = once(f"ensemble_{kind}")
    assert (record.old, record.new, record.locality) == (expected.old, expected.new, expected.locality)


def test_sizes_count_what_is_stored_beside_the_target(task: Task, once: Once) -> None:
    whole, row = numbers(task.source[0]), task.source[0].fc.in_features + 1
    assert once("ensemble_raw")[0].numbers == whole
    assert once("lwf")[0].numbers == whole + task.new_count * row
    assert once("linear_probe")[0].numbers < 0.5 * whole
    assert once("memo")[0].numbers < whole


def test_old_and_new_images_weigh_half_each(task: Task) -> None:
    images = task.images.take(torch.nonzero(task.images.labels != 0).flatten())
    uneven = copy.copy(task)
    uneven.__dict__["images"] = images
    total = uneven.class_weights[images.labels]
    is_new = images.labels >= task.old_count
    assert float(total[is_new].sum()) == pytest.approx(float(total[~is_new].sum()))


def test_the_budget_is_images_and_not_epochs(task: Task) -> None:
    for fraction in (0.1, 0.2, 0.3):
        images = task.split.sample(fraction)
        seen = task.recipe(images, 0.1, 5e-4).epochs * len(images)
        assert seen == pytest.approx(task.split.suite.images, rel=0.1)
    assert task.recipe(task.images.take(torch.arange(3)), 0.1, 5e-4).epochs == 60
    assert task.recipe(task.split.sample(1.0), 0.1, 5e-4).epochs == 5


@pytest.mark.parametrize("architecture", ["cnn", "resnet20"])
def test_a_network_merged_with_itself_is_itself(architecture: str, task: Task) -> None:
    spec = replace(task.target[1], architecture=architecture, options={"width": 4})
    torch.manual_seed(0)
    network = nets.randomised(build_network(spec))
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.bias.data.add_(1)  # a channel that is always zero cannot tell which one it is
    recalibrate(network, spec, task.images)
    pair = replace(task, target=(network, spec), source=(network, replace(spec, classes=task.source[1].classes)))
    x = preprocess(task.test_images.images[:50], spec)
    old, own = Zipped(pair)(x)
    torch.testing.assert_close(old, network(x), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(own, old[:, pair.cloned_indices], atol=1e-3, rtol=1e-3)
