"""A module of the whole source: its logits are log-odds against all other classes of the source."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pnc_core.analysis.evaluation import direct_ensembles, evaluate
from pnc_core.analysis.evidence import verify_bundle
from pnc_core.config import CloneConfig
from pnc_core.images import preprocess
from pnc_core.method.balance import rebalance
from pnc_core.method.clone import clone
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach, detach
from pnc_core.module.export import to_program
from pnc_core.module.head import against, log_odds
from pnc_core.module.manifest import Manifest
from tests.unit.pnc_core.conftest import Pair

CLASSES = ("9", "7")


@pytest.fixture(scope="module")
def bundle(pair: Pair) -> Bundle:
    """A module of one image a class, with an affine head that changes nothing."""
    first = torch.cat([torch.nonzero(pair.images.labels == label).flatten()[:1] for label in range(10)])
    made = clone(pair.target, pair.source, pair.images.take(first), CloneConfig(classes=CLASSES, preset="fast"))
    assert made.manifest.head.kind == "affine"
    tensors = {**made.tensors, "head.scale": torch.ones(()), "head.offset": torch.zeros(())}
    return replace(made, tensors=tensors)


@pytest.fixture
def x(pair: Pair) -> Tensor:
    return preprocess(pair.test.images[:50], pair.target[1])


@torch.no_grad()
def test_both_networks_answer_with_their_own_probabilities(pair: Pair, bundle: Bundle, x: Tensor) -> None:
    assert bundle.manifest.head.odds
    logits, old, every = attach(pair.target[0], bundle)(x), pair.target[0](x), pair.source[0](x)
    assert torch.equal(logits[:, :5], old)
    rows = [pair.source[1].classes.index(name) for name in CLASSES]
    p, q = (logits_of.double().softmax(1) for logits_of in (old, every))
    odds = torch.cat([p, q[:, rows]], 1).logit()
    got = logits.double() - (old.double().amax(1) - p.amax(1).logit())[:, None]
    top = old.argmax(1, keepdim=True)
    assert torch.allclose(got.gather(1, top), odds.gather(1, top), atol=1e-3)
    assert torch.allclose(got[:, 5:], odds[:, 5:], atol=1e-3)


def test_log_odds_of_sure_networks_keep_their_digits() -> None:
    logits = torch.tensor([[30.0, 0.0, -5.0], [0.0, 1.0, 30.0]])
    wanted = torch.tensor([[30.0 - math.log(1 + math.exp(-5)), -30.0], [-30.0, -29.0]])
    assert torch.allclose(log_odds(logits, 2), wanted, atol=1e-4)
    assert torch.allclose(
        against(logits), torch.tensor([[math.log(1 + math.exp(-5))], [math.log(1 + math.e)]]), atol=1e-5
    )


def test_it_is_as_accurate_as_both_networks_side_by_side(pair: Pair, bundle: Bundle) -> None:
    both = direct_ensembles(pair.target, pair.source, CLASSES, pair.test)["softmax"]
    assert evaluate(attach(pair.target[0], bundle), pair.test).average == both.average


@torch.no_grad()
def test_thin_full_and_exported_answer_alike(pair: Pair, bundle: Bundle, x: Tensor) -> None:
    full, thin = attach(pair.target[0], bundle), attach(pair.target[0], bundle.thin(), pair.source[0])
    assert torch.equal(full(x), thin(x))
    exported = to_program(full, pair.target[1]).module()(x)
    assert torch.allclose(exported, full(x), atol=1e-4)
    assert detach(full) is pair.target[0]


def test_its_numbers_are_slices_of_the_source(pair: Pair, bundle: Bundle) -> None:
    assert verify_bundle(bundle, pair.source[0]).numbers == bundle.manifest.sizes.module
    assert len(bundle.tensors["module.fc.weight"]) == len(pair.source[1].classes)


@torch.no_grad()
def test_a_balance_scales_its_log_odds(pair: Pair, bundle: Bundle, x: Tensor) -> None:
    composed = attach(pair.target[0], bundle)
    made = rebalance(composed, pair.images)
    ((scale, offset),) = made.balance
    assert (scale, offset) != (1.0, 0.0)
    base = against(pair.target[0](x))
    wanted = (composed(x)[:, 5:] - base) * scale + offset + base
    assert torch.allclose(made(x)[:, 5:], wanted, atol=1e-4)


def test_manifests_of_other_modules_do_not_name_it(bundle: Bundle) -> None:
    other = replace(bundle.manifest, head=replace(bundle.manifest.head, odds=False))
    assert '"odds"' not in other.to_json()
    assert Manifest.from_json(other.to_json()) == other
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest
