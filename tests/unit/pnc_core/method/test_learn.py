import copy
from dataclasses import replace

import pytest
import torch

from pnc_core.analysis.evaluation import evaluate
from pnc_core.config import CloneConfig, Position
from pnc_core.errors import NetworkError
from pnc_core.identity import fingerprint
from pnc_core.images import preprocess
from pnc_core.method.clone import clone
from pnc_core.method.heads.calibrate import plain_head
from pnc_core.method.insert import Insertion
from pnc_core.method.job import Job, Progress, name_images
from pnc_core.method.learn import insert, refine
from pnc_core.method.search import probe_of
from pnc_core.module.composed import attach
from pnc_core.module.tail import Tail, copied_tensors, verify
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

MIDDLE = Position(target="blocks.1", source="blocks.1")
CONFIG = CloneConfig(classes=("9", "7"), batch_size=64, keep=0.4, views=1, epochs=5, position=MIDDLE)


def _job(pair: Pair, **changes) -> Job:
    return nets.job(pair.target, pair.source, pair.images, replace(CONFIG, **changes))


def _insert(job: Job) -> tuple[Insertion, list[tuple[float, float]]]:
    steps: list[tuple[float, float]] = []
    insertion = insert(job, MIDDLE, probe_of(job), lambda share, loss: steps.append((share, loss)))
    return insertion, steps


def _mismatch(job: Job, insertion: Insertion) -> float:
    batch = next(job.read(job.validation))
    with torch.no_grad():
        return float((insertion.forward(batch)[0] - batch.own).square().mean())


def test_learning_brings_the_module_closer_to_the_source_than_it_began(pair: Pair) -> None:
    fast = _insert(_job(pair, preset="fast", inner_adapters=False))
    joint = _insert(_job(pair, epochs=15))
    assert not fast[1]
    shares = [share for share, _ in joint[1]]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert _mismatch(_job(pair), joint[0]) < _mismatch(_job(pair), fast[0])


def test_the_copies_stay_slices_of_the_source_and_the_budget_holds(pair: Pair) -> None:
    job = _job(pair)
    insertion, _ = _insert(job)
    verify(insertion.tail, job.source, job.cloned)
    assert insertion.tail.parameter_count <= 0.4 * insertion.whole
    assert insertion.tail.inner


@pytest.mark.parametrize("classes", [("9",), ("9", "7"), ("5", "6", "7", "8", "9")])
def test_a_fast_module_is_drawn_back_to_the_source_s_own_logits(pair: Pair, classes: tuple[str, ...]) -> None:
    made = {on: _job(pair, preset="fast", inner_adapters=on, classes=classes, keep=0.3) for on in (False, True)}
    plain, reconstructed = (_insert(job)[0] for job in made.values())
    assert [*reconstructed.tail.inner] == ["blocks.2.0", "blocks.3.0", "fc"]
    verify(reconstructed.tail, made[True].source, made[True].cloned)
    assert _mismatch(made[True], reconstructed) < 0.5 * _mismatch(made[False], plain)


def test_an_uncut_tail_gets_adapters_of_zero(pair: Pair) -> None:
    job = _job(pair, preset="fast", keep=1.0, max_size=2.0)
    tail = insert(job, Position(target="input", source="input"), probe_of(job), lambda share, loss: None).tail
    assert len(tail.inner) > 1
    for adapter in tail.inner.values():
        assert float((adapter.up if adapter.down is None else adapter.up @ adapter.down).detach().abs().max()) < 1e-4
        assert float(adapter.bias.detach().abs().max()) < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 6, 10])
def test_very_few_steps_are_enough_to_learn_something(pair: Pair, steps: int) -> None:
    job = _job(pair, masking="scored", epochs=steps, batch_size=65536)
    insertion, told = _insert(job)
    assert len(told) == steps
    assert all(torch.isfinite(p).all() for p in insertion.parameters())


@pytest.mark.parametrize("changes", [{}, {"preset": "fast"}, {"old_images": False}])
def test_inner_adapters_can_be_left_out(pair: Pair, changes: dict[str, object]) -> None:
    with_some, without = (_insert(_job(pair, inner_adapters=on, **changes))[0] for on in (True, False))
    assert with_some.tail.inner
    assert not without.tail.inner


def test_without_old_images_the_trained_tail_gets_an_adapter_for_its_logits(pair: Pair) -> None:
    jobs = [_job(pair, old_images=old) for old in (True, False)]
    trained, reconstructed = (_insert(job)[0] for job in jobs)
    assert [*reconstructed.tail.inner] == [*trained.tail.inner, "fc"]
    assert _mismatch(jobs[1], reconstructed) < _mismatch(
        jobs[1], replace(reconstructed, tail=_without(reconstructed.tail, "fc"))
    )


def _without(tail: Tail, layer: str) -> Tail:
    """A copy in which this layer's adapter outputs zero."""
    bare = copy.deepcopy(tail)
    for p in bare.inner[layer].parameters():
        p.data.zero_()
    return bare


def test_a_learned_mask_is_not_the_scored_one(pair: Pair) -> None:
    jobs = (_job(pair, masking=masking, epochs=20, localizer="random") for masking in ("learned", "scored"))
    learned, scored = (_insert(job)[0].tail.kept for job in jobs)
    assert any(not torch.equal(learned[name], scored[name]) for name in scored)


def test_refining_learns_on_a_copy_and_only_what_is_learned(pair: Pair) -> None:
    job = _job(pair, refine=8)
    insertion, _ = _insert(job)
    before = [p.detach().clone() for p in insertion.parameters()]
    losses: list[float] = []
    head, _ = plain_head(job, insertion, 1)
    learned = refine(job, insertion, head, 1, lambda share, loss: losses.append(loss))
    assert all(torch.equal(a, b) for a, b in zip(before, insertion.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, learned.parameters(), strict=True))
    copies = copied_tensors(insertion.tail)
    assert all(torch.equal(tensor, copies[name]) for name, tensor in copied_tensors(learned.tail).items())
    half = len(losses) // 2
    assert sum(losses[half:]) < sum(losses[:half])


def test_refining_is_dropped_or_kept_by_the_held_out_loss(pair: Pair) -> None:
    reports: list[Progress] = []
    clone(pair.target, pair.source, pair.images, replace(CONFIG, refine=1), report=reports.append)
    (verdict,) = [r.message for r in reports if r.message.startswith("held-out loss")]
    before, after = (float(word.rstrip(",:")) for word in verdict.split() if word[0].isdigit())
    assert verdict.endswith("kept") is (after < before)
    done = [r.done for r in reports]
    assert done == sorted(done)


@pytest.mark.always
@pytest.mark.filterwarnings("ignore::pnc_core.devices.SlowPrecision")  # expected on processors where bfloat16 is slow
def test_both_networks_stay_what_they_were(pair: Pair) -> None:
    before = fingerprint(pair.target[0]), fingerprint(pair.source[0])
    clone(pair.target, pair.source, pair.images, replace(CONFIG, refine=1, precision="bfloat16"))
    assert (fingerprint(pair.target[0]), fingerprint(pair.source[0])) == before


def test_strict_locality_hands_the_old_answer_on_where_the_module_is_not_run(pair: Pair) -> None:
    config = replace(CONFIG, locality="strict")
    bundle = clone(pair.target, pair.source, pair.images, config)
    composed = attach(pair.target[0], bundle)
    images = pair.test.only(composed.classes)
    with torch.no_grad():
        x = preprocess(images.images, pair.target[1])
        logits, alone = composed(x), pair.target[0](x)
    rejected = logits[:, 5:].max(1).values < -1e3
    assert torch.equal(logits[:, :5], alone)
    is_old = images.labels < 5
    assert float(rejected[is_old].float().mean()) > 0.3
    assert float(rejected[~is_old].float().mean()) < 0.2
    assert torch.equal(logits[rejected].argmax(1), alone[rejected].argmax(1))


def test_a_module_that_is_never_run_costs_nothing_and_answers_all_the_same(pair: Pair) -> None:
    bundle = nets.hand_made(pair.target, pair.source, pair.images, MIDDLE, ("9",), "router", locality_gate=-1e6)
    composed = attach(pair.target[0], bundle)
    x = preprocess(pair.test.images[:8], pair.target[1])
    composed.attached[0].part.forward = None  # calling it would raise
    with torch.no_grad():
        logits = composed(x)
    assert bool((logits[:, 5:] < -1e3).all())
    assert torch.equal(logits[:, :5], pair.target[0](x))


def test_without_old_images_the_statistics_of_batch_norms_replace_them(pair: Pair) -> None:
    new = pair.images.only(("9", "7"))
    config = replace(CONFIG, old_images=False)
    bundle = clone(pair.target, pair.source, new, config)
    assert bundle.manifest.validation.keys() == {"new", "average"}
    found = evaluate(attach(pair.target[0], bundle), pair.test)
    assert found.old > 0.6
    assert found.new > 0.6


def test_without_labels_the_surer_network_names_the_images(pair: Pair) -> None:
    config = replace(CONFIG, labels=False)
    scrambled = replace(pair.images, labels=pair.images.labels.flip(0))
    bundle, same = (clone(pair.target, pair.source, images, config) for images in (pair.images, scrambled))
    assert bundle.to_bytes() == same.to_bytes()
    assert evaluate(attach(pair.target[0], bundle), pair.test).average > 0.5


def test_a_single_class_can_be_told_without_labels(pair: Pair) -> None:
    images = pair.images.only(tuple("012347"))
    job = nets.job(pair.target, pair.source, images, replace(CONFIG, classes=("7",)))
    assert float((name_images(job, images.images).labels == images.labels).float().mean()) > 0.8


def test_a_last_batch_of_one_image_spoils_nothing(pair: Pair) -> None:
    images = pair.images.only(tuple("012347"))
    job = nets.job(pair.target, pair.source, images, replace(CONFIG, classes=("7",)))
    config = replace(job.config, batch_size=next(n for n in range(20, 80) if len(job.train) % n == 1))
    with torch.no_grad():  # callers may disable gradients; `clone` still trains
        bundle = clone(pair.target, pair.source, images, config)
    assert all(torch.isfinite(tensor).all() for tensor in bundle.tensors.values())


def test_a_source_whose_tensors_cannot_be_named_is_refused_at_once(pair: Pair) -> None:
    source = torch.nn.Sequential()
    source.add_module("the whole", pair.source[0])
    with pytest.raises(NetworkError, match="got 'the whole'; rename it"):
        clone(pair.target, (source.eval(), pair.source[1]), pair.images, CONFIG)
