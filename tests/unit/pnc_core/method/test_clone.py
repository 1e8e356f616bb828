import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pnc_core.analysis.evaluation import direct_ensembles, evaluate
from pnc_core.config import CloneConfig, Position
from pnc_core.errors import Cancelled, ConfigError, DataError, NetworkError
from pnc_core.graph.cost import Cost
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.images import preprocess
from pnc_core.method.clone import clone
from pnc_core.method.heads.calibrate import _tap_windows
from pnc_core.method.heads.choose import FittedHead, HeadChoice, choose_head
from pnc_core.method.heads.fit import HeadInputs, head_logits
from pnc_core.method.heads.inputs import tap_widths
from pnc_core.method.insert import localize, stitch
from pnc_core.method.job import Progress
from pnc_core.module.bundle import Bundle, digest
from pnc_core.module.composed import attach, detach
from pnc_core.module.head import LAST, TapWindow, head_cost
from pnc_core.module.tail import Tail, extract, open_tail, verify
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

QUICK = CloneConfig(
    classes=("8",), epochs=1, views=1, batch_size=64, position=Position(target="blocks.1", source="blocks.1")
)


def test_clone_leaves_both_networks_as_they_were(pair: Pair, cloned: Bundle, fingerprints: tuple[str, str]) -> None:
    for (network, _), expected in zip((pair.target, pair.source), fingerprints, strict=True):
        assert fingerprint(network) == expected
        assert not any(m.training for m in network.modules())
        assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert (cloned.manifest.target_fingerprint, cloned.manifest.source_fingerprint) == fingerprints


@pytest.mark.always
def test_the_same_seed_and_inputs_give_the_same_bundle(pair: Pair, cloned: Bundle, config: CloneConfig) -> None:
    torch.manual_seed(123)
    assert digest(clone(pair.target, pair.source, pair.images, config).to_bytes()) == digest(cloned.to_bytes())


def test_another_seed_gives_another_bundle(pair: Pair) -> None:
    one, two = (clone(pair.target, pair.source, pair.images, dataclasses.replace(QUICK, seed=seed)) for seed in (0, 1))
    assert digest(one.to_bytes()) != digest(two.to_bytes())


def test_the_composed_network_knows_old_and_cloned_digits(pair: Pair, cloned: Bundle) -> None:
    found = evaluate(attach(pair.target[0], cloned), pair.test)
    assert found.target_old > 0.9
    assert found.average > 0.93
    assert found.locality > 0.85
    ensembles = direct_ensembles(pair.target, pair.source, ("9", "7"), pair.test)
    assert found.average > max(ensemble.average for ensemble in ensembles.values())


def test_attaching_and_detaching_leaves_the_target_unchanged(
    pair: Pair, cloned: Bundle, fingerprints: tuple[str, str]
) -> None:
    x = preprocess(pair.test.images[:64], pair.target[1])
    with torch.no_grad():
        before = pair.target[0](x)
        composed = attach(pair.target[0], cloned)
        assert composed(x).shape == (64, 7)
        back = detach(composed)
        assert torch.equal(back(x), before)
    assert back is pair.target[0]
    assert fingerprint(back) == fingerprints[0]


def _tail_of(pair: Pair, bundle: Bundle) -> tuple[Tail, list[int]]:
    classes = [pair.source[1].classes.index(c) for c in bundle.manifest.classes]
    opened = open_tail(trace(*pair.source), bundle.manifest.position.source, classes)
    return extract(opened, {g.name: bundle.tensors[f"kept.{g.name}"].long() for g in opened.groups}), classes


def test_the_module_s_numbers_are_the_source_s(pair: Pair, cloned: Bundle) -> None:
    tail, classes = _tail_of(pair, cloned)
    verify(tail, trace(*pair.source), classes)
    for name, tensor in tail.part.state_dict().items():
        if not name.startswith(("gate_", "inner_")):
            assert torch.equal(cloned.tensors[f"module.{name}"], tensor)


def _count(bundle: Bundle, *prefixes: str) -> int:
    return sum(t.numel() for n, t in bundle.tensors.items() if n.startswith(prefixes))


def test_the_sizes_in_the_manifest_are_those_of_the_tensors(pair: Pair, cloned: Bundle, config: CloneConfig) -> None:
    sizes = cloned.manifest.sizes
    assert sizes.module == _count(cloned, "module.")
    assert sizes.adapter == _count(cloned, "adapter.", "calibration.", "inner.")
    assert sizes.head == _count(cloned, "head.")
    assert sizes.source == sum(t.numel() for t in pair.source[0].state_dict().values())
    assert sizes.module + sizes.adapter + sizes.head <= config.size_limit * sizes.source


def test_the_manifest_says_what_was_asked_and_found(cloned: Bundle, config: CloneConfig, pair: Pair) -> None:
    manifest = cloned.manifest
    assert (manifest.payload, manifest.classes, manifest.config) == ("full", ("9", "7"), config)
    assert (manifest.target, manifest.source) == (pair.target[1], pair.source[1])
    tail, _ = _tail_of(pair, cloned)
    whole = open_tail(trace(*pair.source), manifest.position.source, [4, 2]).parameter_count
    assert manifest.kept_fraction == pytest.approx(tail.parameter_count / whole, abs=1e-5)
    assert manifest.kept_fraction <= config.keep
    assert manifest.validation.keys() == {"old", "new", "average"}


@pytest.mark.parametrize("head", ["affine", "router", "joint"])
def test_the_head_asked_for_is_the_one_made(pair: Pair, head: str) -> None:
    bundle = clone(pair.target, pair.source, pair.images, dataclasses.replace(QUICK, head=head))
    assert bundle.manifest.head.kind == head
    x = preprocess(pair.test.images[:32], pair.target[1])
    with torch.no_grad():
        same = torch.equal(attach(pair.target[0], bundle)(x)[:, :5], pair.target[0](x))
    assert same is (head != "joint")


@pytest.mark.parametrize("tap_window", [LAST, TapWindow(3, 1)])
def test_an_attached_head_of_the_last_taps_gives_the_judged_logits(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tap_window: TapWindow
) -> None:
    """The attached module gives the logits of the judged head, which other code computes."""
    seen: list[tuple[HeadInputs, FittedHead]] = []

    def narrow(choices: Sequence[HeadChoice], folds: torch.Tensor) -> FittedHead:
        (choice,) = [choice for choice in choices if choice.tap_window == tap_window and choice.grid == 1]
        seen.append((choice.validation, choose_head([choice], folds)))
        return seen[-1][1]

    monkeypatch.setattr("pnc_core.method.heads.calibrate.choose_head", narrow)
    monkeypatch.setattr("pnc_core.method.heads.calibrate._tap_windows", lambda *_: [tap_window])
    bundle = clone(pair.target, pair.source, pair.images, dataclasses.replace(QUICK, head="joint"))
    spec, (held, fitted) = bundle.manifest.head, seen[0]
    assert (len(spec.target_taps), len(spec.module_taps)) == (tap_window.target, tap_window.module)
    job = nets.job(pair.target, pair.source, pair.images, bundle.manifest.config)
    bundle.write(tmp_path / "module.safetensors")
    with torch.no_grad():
        found = attach(pair.target[0], tmp_path / "module.safetensors")(
            preprocess(job.validation.images, pair.target[1])
        )
    assert torch.allclose(found, head_logits(fitted.head, held.first(len(found))), atol=1e-4)


def test_where_not_all_taps_fit_a_head_may_read_as_many_of_the_target_s_as_do(pair: Pair) -> None:
    job = nets.job(pair.target, pair.source, pair.images, QUICK)
    insertion = localize(job, stitch(job, Position(target="blocks.1", source="blocks.1"), job.train))
    seen, made = tap_widths(job, insertion, 1)
    spent = Cost(insertion.parameter_count, 0)

    def offered(*widths: int) -> list[TapWindow]:
        """Tap windows on offer if the bounds leave room for a head of exactly these widths."""
        whole = spent + head_cost("joint", sum(widths), 5, 1)
        share = (whole.parameter_count + 0.5) / job.source.parameter_count
        return _tap_windows(replace(job, config=dataclasses.replace(QUICK, max_size=share)), insertion, 1)

    assert len(made) > 1
    assert offered(*seen, *made) == [LAST]
    assert offered(*seen, made[-1]) == [LAST, TapWindow(len(seen), 1)]
    assert offered(*seen[1:], made[-1]) == [LAST, TapWindow(len(seen) - 1, 1)]
    assert offered(*seen[-2:], made[-1]) == [LAST, TapWindow(2, 1)]
    assert offered(seen[-1], made[-1]) == [LAST]


def test_progress_grows_to_one_through_the_stages(pair: Pair) -> None:
    reports: list[Progress] = []
    config = CloneConfig(classes=("8",), epochs=2, views=1, batch_size=64, shortlist=2, screen_images=150)
    clone(pair.target, pair.source, pair.images, config, report=reports.append)
    done = [r.done for r in reports]
    assert done == sorted(done)
    assert 0 <= done[0] < done[-1] == 1
    assert list(dict.fromkeys(r.stage for r in reports)) == ["screening", "inserting", "calibrating"]


def test_a_cancelled_clone_raises_and_leaves_the_networks(pair: Pair, fingerprints: tuple[str, str]) -> None:
    calls = iter(range(10_000))
    with pytest.raises(Cancelled):
        clone(pair.target, pair.source, pair.images, QUICK, cancelled=lambda: next(calls) > 8)
    assert (fingerprint(pair.target[0]), fingerprint(pair.source[0])) == fingerprints


def test_invalid_jobs_are_refused(pair: Pair) -> None:
    with pytest.raises(ConfigError, match="unknown"):
        clone(pair.target, pair.source, pair.images, dataclasses.replace(QUICK, classes=("unknown",)))
    with pytest.raises(DataError, match="'8'"):
        clone(pair.target, pair.source, pair.images.only(tuple("01234")), QUICK)
    network, spec = pair.source
    network.train()
    try:
        with pytest.raises(NetworkError, match="train mode"):
            clone(pair.target, (network, spec), pair.images, QUICK)
    finally:
        network.eval()
