import contextlib
import copy
import dataclasses
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pnc_core.errors import BundleError, MismatchError, NetworkError, TargetMismatch
from pnc_core.identity import fingerprint
from pnc_core.images import preprocess
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import Composed, attach, detach
from tests.unit.pnc_core.conftest import Pair


@pytest.fixture
def x(pair: Pair) -> Tensor:
    return preprocess(pair.test.images[:50], pair.target[1])


def _old(pair: Pair, x: Tensor) -> Tensor:
    with torch.no_grad():
        return pair.target[0](x)


@pytest.mark.parametrize("kind", ["affine", "router"])
@torch.no_grad()
def test_old_logits_are_the_target_s_bit_for_bit(pair: Pair, by_hand: dict[str, Bundle], x: Tensor, kind: str) -> None:
    composed = attach(pair.target[0], by_hand[kind])
    assert torch.equal(composed(x)[:, :5], _old(pair, x))
    assert composed(x).shape == (50, 6)
    assert composed.classes == ("0", "1", "2", "3", "4", *by_hand[kind].manifest.classes)


@torch.no_grad()
def test_a_joint_head_may_change_old_logits(pair: Pair, by_hand: dict[str, Bundle], x: Tensor) -> None:
    assert not torch.equal(attach(pair.target[0], by_hand["joint"])(x)[:, :5], _old(pair, x))


@pytest.mark.parametrize("kind", ["affine", "router", "joint"])
@torch.no_grad()
def test_thin_and_full_give_equal_logits(pair: Pair, by_hand: dict[str, Bundle], x: Tensor, kind: str) -> None:
    full = attach(pair.target[0], by_hand[kind])
    thin = attach(pair.target[0], by_hand[kind].thin(), pair.source[0])
    assert torch.equal(full(x), thin(x))


@torch.no_grad()
def test_a_bundle_is_attached_from_its_file(pair: Pair, by_hand: dict[str, Bundle], tmp_path: Path, x: Tensor) -> None:
    path = tmp_path / "module.safetensors"
    by_hand["router"].write(path)
    assert torch.equal(attach(pair.target[0], path)(x), attach(pair.target[0], str(path))(x))


@torch.no_grad()
def test_detaching_returns_the_very_same_untouched_target(
    pair: Pair, by_hand: dict[str, Bundle], x: Tensor, fingerprints: tuple[str, str]
) -> None:
    target, before = pair.target[0], _old(pair, x)
    composed = attach(target, by_hand["joint"])
    composed(x)
    back = detach(composed)
    assert back is target
    assert fingerprint(back) == fingerprints[0]
    assert float((back(x) - before).abs().max()) == 0.0


def test_nothing_is_registered_on_the_target(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    target = pair.target[0]
    names = [name for name, _ in target.named_modules()]
    grads = [p.requires_grad for p in target.parameters()]
    composed = attach(target, by_hand["router"])
    assert [name for name, _ in target.named_modules()] == names
    assert [p.requires_grad for p in target.parameters()] == grads
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in target.modules())
    assert composed.target is target


@torch.no_grad()
def test_mode_dtype_and_state_of_the_composed_network_leave_the_target_alone(
    pair: Pair, by_hand: dict[str, Bundle], fingerprints: tuple[str, str]
) -> None:
    composed = attach(pair.target[0], by_hand["router"])
    composed.train()
    composed.to(torch.float64)
    composed.requires_grad_(True)
    for tensor in composed.state_dict().values():
        tensor.zero_()
    assert not any(m.training for m in pair.target[0].modules())
    assert fingerprint(pair.target[0]) == fingerprints[0]
    mine = {t.data_ptr() for t in pair.target[0].state_dict().values()}
    assert not mine & {t.data_ptr() for t in composed.state_dict().values()}


def test_a_composed_network_is_in_eval_mode_like_its_parts(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    assert not attach(pair.target[0], by_hand["router"]).training


@torch.no_grad()
def test_train_mode_does_not_change_a_module_s_answers_or_its_copies(
    pair: Pair, by_hand: dict[str, Bundle], x: Tensor
) -> None:
    composed = attach(pair.target[0], by_hand["router"])
    expected, before = composed(x), fingerprint(composed.clones)
    composed.train()
    with contextlib.suppress(NetworkError):  # a refusal is fine too
        assert torch.equal(composed(x), expected)
    assert fingerprint(composed.clones) == before


def test_a_target_in_train_mode_is_refused(pair: Pair, by_hand: dict[str, Bundle], x: Tensor) -> None:
    target = copy.deepcopy(pair.target[0])
    composed = attach(target, by_hand["router"])
    target.train()
    with pytest.raises(NetworkError, match="train mode"):
        composed(x)
    with pytest.raises(NetworkError, match="train mode"):
        attach(target, by_hand["router"])


def test_another_target_is_refused_and_left_as_it_was(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    other = copy.deepcopy(pair.target[0])
    other.fc.bias.data.add_(1e-3)
    before = fingerprint(other)
    with pytest.raises(MismatchError, match=r"made for the target sha256:.* got the target sha256:"):
        attach(other, by_hand["router"])
    assert fingerprint(other) == before


def test_a_failed_attach_leaves_target_and_composed_network(
    pair: Pair, by_hand: dict[str, Bundle], x: Tensor, fingerprints: tuple[str, str]
) -> None:
    good = by_hand["router"]
    composed = attach(pair.target[0], good)
    broken = Bundle(by_hand["affine"].manifest, {**by_hand["affine"].tensors, "surprise": torch.ones(1)})
    with torch.no_grad():
        before = composed(x)
        for network in (pair.target[0], composed):
            with pytest.raises(BundleError):
                attach(network, broken)
            with pytest.raises(MismatchError):
                attach(network, by_hand["affine"].thin())
        assert torch.equal(composed(x), before)
    assert fingerprint(pair.target[0]) == fingerprints[0]


@torch.no_grad()
def test_modules_give_the_same_logits_in_whatever_order_they_come(
    pair: Pair, by_hand: dict[str, Bundle], x: Tensor
) -> None:
    found = []
    for kinds in (("affine", "router", "joint"), ("joint", "affine", "router")):
        composed: Composed | torch.nn.Module = pair.target[0]
        for kind in kinds:
            composed = attach(composed, by_hand[kind])
        columns = {name: i for i, name in enumerate(composed.classes)}
        found.append(composed(x)[:, [columns[name] for name in "01234568"]])
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("change", [{"input_size": (1, 64, 64)}, {"classes": tuple("abcde")}, {"mean": (0.0,)}])
def test_a_stranger_s_manifest_must_tell_the_receiver_s_own_spec(
    pair: Pair, by_hand: dict[str, Bundle], change: dict[str, object]
) -> None:
    manifest = by_hand["affine"].manifest
    spec = dataclasses.replace(manifest.target, **change)
    told = Bundle(dataclasses.replace(manifest, target=spec), by_hand["affine"].tensors)
    with pytest.raises(TargetMismatch):
        attach(pair.target[0], told, spec=pair.target[1])


def test_a_huge_input_size_costs_nothing_to_trace(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    manifest = by_hand["affine"].manifest
    spec = dataclasses.replace(manifest.target, input_size=(1, 4096, 4096))
    started = time.monotonic()
    attach(pair.target[0], Bundle(dataclasses.replace(manifest, target=spec), by_hand["affine"].tensors))
    assert time.monotonic() - started < 2  # computing it would take 16 million pixels through the network


@torch.no_grad()
def test_one_of_two_modules_can_be_pulled_out(pair: Pair, by_hand: dict[str, Bundle], x: Tensor) -> None:
    one = attach(pair.target[0], by_hand["affine"])
    both = attach(one, by_hand["router"])
    left = detach(both, ["6"])
    assert isinstance(left, Composed)
    assert left.classes == one.classes
    assert torch.equal(left(x), one(x))
    assert both(x).shape == (50, 7)
    assert detach(both) is pair.target[0]
    with pytest.raises(MismatchError, match="expected one of"):
        detach(both, ["5", "6"])


def test_the_same_class_is_not_attached_twice(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    with pytest.raises(MismatchError, match=r"not there yet, got \['5'\]"):
        attach(attach(pair.target[0], by_hand["affine"]), by_hand["affine"])


def test_a_manifest_with_other_target_classes_than_logits_is_refused(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    manifest = by_hand["affine"].manifest
    spec = dataclasses.replace(manifest.target, classes=(*manifest.target.classes, "more"))
    with pytest.raises((BundleError, MismatchError, NetworkError)):
        attach(pair.target[0], Bundle(dataclasses.replace(manifest, target=spec), by_hand["affine"].tensors))
