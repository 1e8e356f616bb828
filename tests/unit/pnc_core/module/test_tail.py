import dataclasses

import pytest
import torch
from torch import nn

from pnc_core.errors import MismatchError, NetworkError, PositionError
from pnc_core.graph.architectures import build_network
from pnc_core.graph.features import cut, run_part
from pnc_core.graph.layouts import kept_features
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.module.tail import Tail, copied_tensors, extract, open_tail, verify
from tests.unit.pnc_core import nets

ARCHITECTURES = [
    ("resnet20", 32, 0), ("resnet20", 32, 4), ("cnn", 16, 1), ("vgg", 32, 2), ("torchvision/mobilenet_v2", 32, 3),
    ("torchvision/densenet121", 32, 2), ("torchvision/efficientnet_b0", 32, 3),
    ("torchvision/shufflenet_v2_x0_5", 32, 1), ("torchvision/convnext_tiny", 32, 4), ("torchvision/swin_t", 32, 2),
    ("torchvision/squeezenet1_0", 48, 2), ("torchvision/googlenet", 32, 2),
    ("torchvision/mobilenet_v3_small", 32, 2), ("torchvision/regnet_y_400mf", 32, 8),
    ("torchvision/resnext50_32x4d", 32, 8), ("torchvision/swin_v2_t", 64, 14),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "start"), ARCHITECTURES)
@torch.no_grad()
def test_masked_and_extracted_are_the_same_function(name: str, size: int, start: int) -> None:
    tail, _, _, phi = nets.opened(name, size, start)
    kept = nets.some_channels(tail)
    small = extract(tail, kept)
    tail.mask(kept)
    masked, masked_taps = tail.forward(phi.clone())
    logits, taps = small.forward(phi.clone())
    tail.mask(None)
    whole, _ = tail.forward(phi.clone())
    assert logits.shape == (2, 2)
    assert float((logits - masked).abs().max() / masked.abs().max()) < 1e-5
    assert not torch.allclose(whole, masked)
    for tap, wanted, axis, group in zip(taps, masked_taps, tail.tap_axes, tail.tap_groups, strict=True):
        seen = wanted if group is None else wanted.index_select(axis, kept[group])
        assert float((tap - seen).abs().max() / wanted.abs().max().clamp_min(1e-6)) < 1e-5


@pytest.mark.parametrize(("name", "size", "start"), ARCHITECTURES)
def test_the_count_says_exactly_how_many_numbers_stay(name: str, size: int, start: int) -> None:
    spec = nets.spec(name, size)
    traced = trace(build_network(spec, device="meta"), spec)
    tail = open_tail(traced, traced.positions[start].name, [2, 0])
    assert tail.count({g.name: g.width for g in tail.groups}) == tail.parameter_count
    kept = nets.some_channels(tail, 0.3)
    assert (
        tail.count({n: len(k) for n, k in kept.items()}) == extract(tail, kept).parameter_count < tail.parameter_count
    )


def test_a_map_of_the_classes_is_no_tap() -> None:
    tail, _, spec, phi = nets.opened("torchvision/squeezenet1_0", 48, 6)
    traced = trace(build_network(spec, device="meta"), spec)
    assert traced.positions[-1].channels == 3
    assert tail.taps == tuple(p.name for p in traced.positions[7:-1])
    logits, taps = tail.forward(phi)
    assert logits.shape == (2, 2)
    assert [t.shape[1] for t in taps] == [traced.position(name).channels for name in tail.taps]


class _Computed(torch.nn.Module):
    """Creates constant tensors in every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(1, 4, 1), torch.nn.Conv2d(4, 4, 1)
        self.flatten, self.fc = torch.nn.Flatten(), torch.nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(x)) * torch.ones(1).view(1, 1, 1)
        return self.fc(self.flatten(x) + torch.arange(16).view(1, 16))


def test_computed_constants_have_the_same_names_however_often_a_network_was_traced() -> None:
    network, spec = _Computed().eval(), nets.spec("cnn", 2, 1)
    tails = [copied_tensors(open_tail(trace(network, spec), "input", [0, 1])) for _ in range(2)]
    assert tails[0].keys() == tails[1].keys() >= {"_tensor_constant0", "_tensor_constant1"}
    assert [tails[1][f"_tensor_constant{i}"].numel() for i in (0, 1)] == [1, 16]


STREAMS = [
    ("torchvision/mobilenet_v2", 32, 4), ("torchvision/densenet121", 32, 5), ("torchvision/googlenet", 32, 7),
    ("torchvision/squeezenet1_0", 48, 6), ("torchvision/resnext50_32x4d", 32, 10),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "start"), STREAMS)
@torch.no_grad()
def test_streams_can_be_pruned_too(name: str, size: int, start: int) -> None:
    network, spec = nets.network(name, size)
    traced = trace(network, spec)
    inner, both = (open_tail(traced, traced.positions[start].name, [0, 1], residual=r) for r in (False, True))
    assert len(both.groups) > len(inner.groups)
    kept = nets.some_channels(nets.calibrated(both))
    small = extract(both, kept)
    both.mask(kept)
    phi = torch.randn(2, *traced.positions[start].shape)
    (masked, masked_taps), (logits, taps) = both.forward(phi.clone()), small.forward(phi.clone())
    assert float((logits - masked).abs().max() / masked.abs().max()) < 1e-5
    for tap, wanted, axis, pieces in zip(taps, masked_taps, both.tap_axes, both.tap_pieces, strict=True):
        seen = wanted.index_select(axis, kept_features(pieces, kept))
        assert float((tap - seen).abs().max() / wanted.abs().max().clamp_min(1e-6)) < 1e-5


@pytest.mark.parametrize(("name", "size", "start"), STREAMS[:2])
def test_an_extract_with_pruned_streams_is_verified_too(name: str, size: int, start: int) -> None:
    network, spec = nets.network(name, size)
    traced = trace(network, spec)
    tail = open_tail(traced, traced.positions[start].name, [0, 1], residual=True)
    verify(extract(tail, nets.some_channels(tail)), traced, [0, 1])


def _resnet() -> tuple[Tail, torch.nn.Module, nets.NetworkSpec, torch.Tensor]:
    return nets.opened("resnet20", 16, 4, width=8)


@torch.no_grad()
def test_an_opened_tail_is_the_source_itself_for_the_chosen_classes_in_their_order() -> None:
    network, spec = nets.network("resnet20", 16, width=8)
    traced = trace(network, spec)
    tail = open_tail(traced, "layer1.2", [2, 0])
    phi = torch.randn(3, *traced.position("layer1.2").shape)
    logits, _ = run_part(cut(traced, "layer1.2", []), phi)
    assert torch.allclose(tail.forward(phi)[0], logits[:, [2, 0]], atol=1e-5)
    assert tail.taps == ("layer2.0", "layer2.1", "layer2.2", "layer3.0", "layer3.1", "layer3.2")


def test_copies_are_slices_of_the_source_bit_for_bit() -> None:
    tail, network, spec, _ = _resnet()
    kept = nets.some_channels(tail)
    small = extract(tail, kept)
    copies, state = copied_tensors(small), network.state_dict()
    assert torch.equal(copies["layer2.0.conv1.weight"], state["layer2.0.conv1.weight"][kept["layer2.0.conv1"]])
    assert torch.equal(copies["layer2.0.conv2.weight"], state["layer2.0.conv2.weight"][:, kept["layer2.0.conv1"]])
    assert torch.equal(copies["fc.weight"], state["fc.weight"][[2, 0]])
    assert not any(name.startswith("gate") for name in copies)
    verify(small, trace(network, spec), [2, 0])


def test_one_flipped_bit_is_found_and_named() -> None:
    tail, network, spec, _ = _resnet()
    small = extract(tail, nets.some_channels(tail))
    weight = small.part.get_submodule("layer3.1.conv2").weight
    weight.data.view(torch.int32)[0, 0, 0, 0] ^= 1
    with pytest.raises(MismatchError, match=r"layer3\.1\.conv2\.weight"):
        verify(small, trace(network, spec), [2, 0])


def test_other_classes_or_other_channels_are_found() -> None:
    tail, network, spec, _ = _resnet()
    small, traced = extract(tail, nets.some_channels(tail)), trace(network, spec)
    with pytest.raises(MismatchError, match=r"fc\."):
        verify(small, traced, [0, 2])
    with pytest.raises(MismatchError):
        verify(dataclasses.replace(small, kept=nets.some_channels(tail, seed=9)), traced, [2, 0])


@torch.no_grad()
def test_opening_masking_and_extracting_leave_the_source_alone() -> None:
    network, spec = nets.network("resnet20", 16, width=8)
    before, phi = fingerprint(network), torch.randn(2, 8, 16, 16)
    tail = nets.calibrated(open_tail(trace(network, spec), "stem", [1]))
    kept = nets.some_channels(tail)
    state = nets.snapshot(tail.part)
    small = extract(tail, kept)
    tail.mask(kept)
    tail.forward(phi)
    for part in (tail.part, small.part):
        for tensor in part.state_dict().values():
            tensor.zero_()
    assert fingerprint(network) == before
    assert state.keys() == tail.part.state_dict().keys()


def test_a_mask_is_taken_off_again() -> None:
    tail, _, _, phi = _resnet()
    before = tail.forward(phi)[0]
    tail.mask(nets.some_channels(tail))
    assert not torch.equal(tail.forward(phi)[0], before)
    tail.mask(None)
    assert torch.equal(tail.forward(phi)[0], before)


def test_an_unknown_position_is_refused() -> None:
    network, spec = nets.network("cnn", 8, 1, width=4)
    with pytest.raises(PositionError, match="layer9"):
        open_tail(trace(network, spec), "layer9", [0, 1])


def test_a_position_with_nothing_to_prune_behind_it_is_refused() -> None:
    network, spec = nets.network("cnn", 8, 1, width=4)
    with pytest.raises(PositionError, match=r"'blocks\.3'"):
        open_tail(trace(network, spec), "blocks.3", [0, 1])


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_source_with_forward_hooks_behind_the_position_is_refused(register: str) -> None:
    network, spec = nets.network("cnn", 8, 1, width=4)
    seen: list[object] = []
    handle = getattr(network.blocks[2][0], register)(lambda *values: seen.append(values))
    told = (
        r"without forward hooks behind position 'blocks\.1', got some on 'blocks\.2\.0'; .* remove the hooks, or move"
    )
    with pytest.raises(NetworkError, match=told):
        open_tail(trace(network, spec), "blocks.1", [0, 1])
    assert open_tail(trace(network, spec), "blocks.2", [0, 1]).groups
    handle.remove()
    assert open_tail(trace(network, spec), "blocks.1", [0, 1]).groups


def test_a_computed_tensor_that_a_hook_left_on_a_layer_is_refused() -> None:
    network, spec = nets.network("cnn", 8, 1, width=4)

    def keep(layer: nn.Module, given: object, made: torch.Tensor) -> None:
        layer.last = made

    handle = network.blocks[2][0].register_forward_hook(keep)
    network(nets.pictures(1, spec))
    handle.remove()
    with pytest.raises(
        NetworkError, match=r"copy\.deepcopy can copy behind .* got RuntimeError.*; delete tensors that hooks"
    ):
        open_tail(trace(network, spec), "blocks.1", [0, 1])
    del network.blocks[2][0].last
    assert open_tail(trace(network, spec), "blocks.1", [0, 1]).groups


def test_hooks_on_gradients_stay_with_the_source() -> None:
    network, spec = nets.network("cnn", 8, 1, width=4)
    seen: list[object] = []
    network.blocks[2][0].register_full_backward_hook(lambda *values: seen.append(values))
    tail = open_tail(trace(network, spec), "blocks.1", [0, 1])
    phi = nets.pictures(2, nets.spec("cnn", 4, 4)).requires_grad_()
    tail.forward(phi)[0].sum().backward()
    assert phi.grad is not None
    assert not seen
    assert network.blocks[2][0]._backward_hooks


class _Branches(nn.Module):
    """Two parallel convolutions added to the input, as RepVGG: no channel is inside a block."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.wide(x) + self.narrow(x) + x)


class _Streams(nn.Module):
    """A network whose only prunable channels are those of a stream; with `heads` the logits of two heads are added."""

    def __init__(self, heads: int = 1) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, 4, 3, padding=1), nn.Sequential(_Branches(), _Branches())
        self.grow, self.more = nn.Conv2d(4, 4, 3, padding=1), _Branches()
        self.heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(heads))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.more(self.grow(self.blocks(torch.relu(self.stem(x))))).mean((2, 3))
        return torch.stack([head(x) for head in self.heads], dim=0).mean(0)


@torch.no_grad()
def test_streams_are_pruned_where_no_channel_is_inside_a_block() -> None:
    spec = nets.spec("cnn", 6, 1)
    traced = trace(nets.randomised(_Streams().eval()), spec)
    tail = open_tail(traced, "blocks.0", [2, 0])
    assert tail.groups
    assert all(group.residual for group in tail.groups)
    kept = nets.some_channels(nets.calibrated(tail))
    small = extract(tail, kept)
    phi = torch.randn(3, *traced.position("blocks.0").shape)
    whole, _ = tail.forward(phi)
    tail.mask(kept)
    (masked, _), (logits, taps) = tail.forward(phi), small.forward(phi)
    assert torch.allclose(logits, masked, atol=1e-6)
    assert not torch.allclose(logits, whole, atol=1e-3)
    assert [tap.shape[axis] for tap, axis in zip(taps, small.tap_axes, strict=True)] == small.tap_channels(traced)
    verify(small, traced, [2, 0])


@torch.no_grad()
def test_classes_are_selected_behind_two_heads_whose_logits_are_added() -> None:
    spec = nets.spec("cnn", 6, 1)
    network = nets.randomised(_Streams(heads=2).eval())
    traced = trace(network, spec)
    tail = open_tail(traced, "input", [2, 0])
    x = nets.pictures(3, spec)
    assert torch.allclose(tail.forward(x)[0], network(x)[:, [2, 0]], atol=1e-6)
    small = extract(tail, nets.some_channels(tail))
    assert small.forward(x)[0].shape == (3, 2)
    verify(small, traced, [2, 0])


def test_a_stack_of_answers_is_no_position() -> None:
    positions = trace(_Streams(heads=2).eval(), nets.spec("cnn", 6, 1)).positions
    assert [p.name for p in positions] == ["input", "relu", "blocks.0", "blocks.1", "grow", "more"]
