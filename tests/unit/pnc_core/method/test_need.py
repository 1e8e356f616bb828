"""Few images: the module is the whole source, it is compared with its alternatives, and a worse one is refused."""

from dataclasses import replace

import pytest
import torch

from pnc_core.analysis.evaluation import direct_ensembles, evaluate
from pnc_core.config import CloneConfig, Position
from pnc_core.errors import WorseThanNone
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.advice import advise
from pnc_core.method.clone import clone
from pnc_core.method.heads.calibrate import falls_behind, read
from pnc_core.method.insert import whole_source
from pnc_core.method.job import Progress, prepare
from pnc_core.method.need import is_enough, is_refused, refusal
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach, detach
from pnc_core.module.verdict import Answers, Verdict, judge
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

FEW = CloneConfig(classes=("9", "7"), preset="fast", batch_size=64)
CLASSES = (*"01234", "9", "7")


def _few(pair: Pair, count: int, copies: int = 1) -> ImageSet:
    rows = [torch.nonzero(pair.images.labels == label).flatten()[:count].repeat(copies) for label in range(10)]
    return pair.images.take(torch.cat(rows))


@pytest.fixture(scope="module")
def reports() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def bundle(pair: Pair, reports: list[Progress]) -> Bundle:
    return clone(pair.target, pair.source, _few(pair, 4), FEW, report=reports.append)


def test_with_few_images_the_module_is_the_whole_source_and_as_good_as_both_networks(
    pair: Pair, bundle: Bundle
) -> None:
    prints = [fingerprint(network) for network, _ in (pair.target, pair.source)]
    manifest = bundle.manifest
    assert (str(manifest.position), manifest.kept_fraction) == ("input->input", 1.0)
    composed = attach(pair.target[0], bundle)
    found = evaluate(composed, pair.test)
    both = direct_ensembles(pair.target, pair.source, FEW.classes, pair.test)["softmax"]
    assert found.average > both.average - 0.005
    assert detach(composed) is pair.target[0]
    assert [fingerprint(network) for network, _ in (pair.target, pair.source)] == prints
    assert manifest.target_fingerprint == prints[0]


def test_one_image_of_a_class_is_enough_for_the_accuracy_of_both_networks(pair: Pair) -> None:
    made = clone(pair.target, pair.source, _few(pair, 1), FEW)
    both = direct_ensembles(pair.target, pair.source, FEW.classes, pair.test)["softmax"]
    assert made.manifest.head.kind == "affine"
    assert evaluate(attach(pair.target[0], made), pair.test).average > both.average - 0.02


def test_the_figures_are_of_images_that_the_head_has_not_seen(
    pair: Pair, bundle: Bundle, reports: list[Progress]
) -> None:
    verdict = bundle.manifest.verdict
    assert verdict is not None
    assert (verdict.fitting, verdict.images) == ("cross-fitted", 4 * len(CLASSES))
    assert verdict.figures.keys() == {"module", "ensemble", "probe", "alone"}
    found = evaluate(attach(pair.target[0], bundle), pair.test).average
    module = verdict.figures["module"]
    assert module.low <= found <= module.high
    assert bundle.manifest.validation["average"] == module.average
    judged = reports[-1].data["judged"]
    assert isinstance(judged, dict)
    confusion = judged["confusion"]
    assert confusion["classes"] == list(CLASSES)
    for key in ("before", "after"):
        assert [sum(row) for row in confusion[key]] == [4] * len(CLASSES)
    assert all(row[5:] == [0, 0] for row in confusion["before"])
    right = [confusion["after"][label][label] for label in range(len(CLASSES))]
    assert module.old == pytest.approx(sum(right[:5]) / 20, abs=1e-6)


def test_copies_change_nothing(pair: Pair) -> None:
    plain, copied = (clone(pair.target, pair.source, _few(pair, 2, copies), FEW) for copies in (1, 5))
    assert copied.manifest == plain.manifest
    assert copied.tensors.keys() == plain.tensors.keys()
    assert all(torch.equal(copied.tensors[name], tensor) for name, tensor in plain.tensors.items())


@pytest.mark.parametrize("bound", [{"max_size": 0.6}, {"keep": 0.4}, {"max_macs": 1.5}])
def test_a_bound_is_kept_however_few_images_there_are(pair: Pair, bound: dict[str, float]) -> None:
    config = replace(FEW, shortlist=1, keep_anyway=True, **bound)  # type: ignore[arg-type]
    manifest = clone(pair.target, pair.source, _few(pair, 4), config).manifest
    assert manifest.kept_fraction < 1
    assert manifest.sizes.module + manifest.sizes.adapter + manifest.sizes.head <= 0.6 * manifest.sizes.source


def test_a_worse_module_is_refused_with_advice_and_made_if_asked_for(pair: Pair) -> None:
    stranger = nets.network("cnn", 8, 1, "56789", width=8)  # random weights: it knows nothing
    config = replace(FEW, position=Position(target="blocks.1", source="blocks.1"), head="affine")
    with pytest.raises(WorseThanNone, match=r"leave out position.+add images.+keep_anyway"):
        clone(pair.target, stranger, pair.images, config)
    made = clone(pair.target, stranger, pair.images, replace(config, keep_anyway=True))
    assert made.manifest.verdict is not None
    assert made.manifest.verdict.outcome == "worse"


def _verdict(module: int, alternative: int, images: int) -> Verdict:
    sides = [[i < right for i in range(images)] for right in (module, alternative)]
    return judge(Answers(sides[0], sides[0], 0), {"probe": Answers(sides[1], sides[1], 0)}, "held out")


@pytest.mark.parametrize(
    ("module", "alternative", "images", "enough"),
    [(70, 60, 100, True), (8, 8, 10, False), (700, 700, 1000, True), (690, 700, 1000, False), (60, 70, 100, False)],
)
def test_a_cut_tail_is_enough_only_if_the_images_show_it(
    module: int, alternative: int, images: int, enough: bool
) -> None:
    assert is_enough(_verdict(module, alternative, images)) is enough


def test_only_a_module_that_is_surely_worse_is_refused() -> None:
    worse = _verdict(50, 80, 100)
    assert is_refused(worse, FEW)
    assert not is_refused(worse, replace(FEW, keep_anyway=True))
    assert not is_refused(worse, replace(FEW, locality="strict"))
    assert not is_refused(_verdict(7, 8, 10), FEW)
    assert "leave out" not in refusal(worse, FEW)
    assert "leave out max_size and keep" in refusal(worse, replace(FEW, max_size=0.3, keep=0.2))


def test_advice_comes_from_the_images_alone_with_a_curve_and_a_forecast(pair: Pair) -> None:
    images = _few(pair, 8)
    prints = [fingerprint(network) for network, _ in (pair.target, pair.source)]
    found = advise(nets.job(pair.target, pair.source, images, FEW))
    assert [round(point.per_class, 2) for point in found.curve] == [2, 4, 8]
    assert found.verdict.images == 8 * len(CLASSES)
    expected = evaluate(attach(pair.target[0], clone(pair.target, pair.source, images, FEW)), pair.test).average
    assert found.verdict.figures["module"].low <= expected <= found.verdict.figures["module"].high
    many, accuracy = found.more
    assert many == 32
    assert found.curve[-1].figure.average <= accuracy <= 1
    assert found.seconds > 0
    assert [fingerprint(network) for network, _ in (pair.target, pair.source)] == prints


@pytest.mark.parametrize("is_right", [False, True])
def test_a_cut_tail_is_compared_with_the_whole_source_on_the_same_images(pair: Pair, is_right: bool) -> None:
    job = prepare(trace(*pair.target), trace(*pair.source), _few(pair, 20), FEW, lambda progress: None, lambda: False)
    whole = whole_source(job)
    assert whole is not None
    labels = job.validation.labels
    answers = labels if is_right else (labels + 1) % len(CLASSES)
    logits = torch.nn.functional.one_hot(answers, len(CLASSES)).float()
    outputs = read(job, [whole])[0]
    assert falls_behind(job, logits, (whole, outputs)) is not is_right
    assert not falls_behind(job, None, (whole, outputs))
