from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pnc_core.graph.architectures import build_network
from pnc_core.graph.groups import Channels, channel_groups
from pnc_core.graph.layouts import Piece, kept_features, parameter_count, remove_channels
from pnc_core.graph.positions import trace
from pnc_core.module.tail import extract, open_tail
from tests.unit.pnc_core import nets


class _Net(nn.Module):
    """Two groups of inner channels, one residual stream, and one group frozen by a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.back = nn.Conv2d(6, 4, 1)
        self.mixed = nn.Conv2d(4, 8, 1)
        self.group_norm = nn.GroupNorm(2, 8)
        self.last = nn.Conv2d(8, 5, 1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.back(self.depthwise(F.relu(self.norm(self.inner(x)))))
        x = self.last(self.group_norm(self.mixed(x)))
        return self.fc(self.flatten(x))


class _Wide(nn.Module):
    """A grouped convolution that doubles its channels, and a concatenation with a norm and two readers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 1)
        self.grouped = nn.Conv2d(6, 12, 3, padding=1, groups=3)
        self.one = nn.Conv2d(12, 4, 1)
        self.two = nn.Conv2d(12, 5, 1)
        self.depthwise = nn.Conv2d(9, 18, 3, padding=1, groups=9)
        self.norm = nn.BatchNorm2d(18)
        self.both = nn.Conv2d(18, 7, 1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(F.relu(self.stem(x))))
        pair = torch.cat([self.one(x), self.two(x)], 1)
        made = self.both(F.relu(self.norm(self.depthwise(pair))))
        return self.fc(self.flatten(torch.cat([pair, made], dim=1)))


def _read(network: nn.Module | None = None) -> tuple[fx.GraphModule, Channels]:
    torch.manual_seed(0)
    network = nets.randomised(_Net() if network is None else network)
    traced = trace(network.eval(), nets.spec("cnn", 2, 1))
    output = next(n for n in traced.graph_module.graph.nodes if n.op == "output")
    return traced.graph_module, channel_groups(traced.graph_module, traced.shapes, output.args[0])


def test_a_group_has_its_producers_carriers_and_consumers() -> None:
    _, channels = _read()
    inner = next(g for g in channels.groups if g.name == "inner")
    assert (inner.width, inner.producers, inner.carriers) == (6, ("inner",), ("norm", "depthwise"))
    assert [(c.module, c.axis, c.pieces) for c in inner.consumers] == [("back", 1, (Piece("inner", 6, 1),))]
    assert not inner.residual


def test_an_addition_makes_a_residual_stream() -> None:
    _, channels = _read()
    stream = next(g for g in channels.groups if g.name == "stem")
    assert stream.residual
    assert stream.producers == ("stem", "back")
    assert {c.module for c in stream.consumers} == {"inner", "mixed"}


def test_what_is_not_understood_is_left_whole() -> None:
    _, channels = _read()
    assert {g.name for g in channels.groups} == {"inner", "stem", "last"}


def test_a_flatten_repeats_channels() -> None:
    _, channels = _read()
    last = next(g for g in channels.groups if g.name == "last")
    assert [(c.module, c.pieces) for c in last.consumers] == [("fc", (Piece("last", 5, 4),))]


def test_the_rows_of_the_logits_are_told_apart() -> None:
    _, channels = _read()
    assert channels.logits is not None
    assert (channels.logits.name, channels.logits.width) == ("fc", 3)


@pytest.mark.parametrize("sizes", [{"inner": 6, "stem": 4, "last": 5}, {"inner": 1, "stem": 3, "last": 2}])
def test_the_count_is_what_removal_leaves(sizes: dict[str, int]) -> None:
    part, channels = _read()
    expected = parameter_count(part, channels.layouts, sizes)
    remove_channels(part, channels.layouts, {name: torch.arange(size) for name, size in sizes.items()})
    assert sum(t.numel() for t in part.state_dict().values()) == expected


def test_removing_dead_channels_changes_nothing_and_leaves_a_working_network() -> None:
    part, channels = _read()
    dead, x = torch.tensor([1, 3]), torch.randn(3, 1, 2, 2)
    for group in channels.groups:
        for consumer in group.consumers:
            weight = part.get_submodule(consumer.module).weight.data
            (piece,) = consumer.pieces
            weight[:, torch.cat([dead * piece.repeat + i for i in range(piece.repeat)])] = 0
    before = part(x)
    kept = {g.name: torch.tensor([i for i in range(g.width) if i not in dead]) for g in channels.groups}
    remove_channels(part, channels.layouts, kept)
    assert torch.allclose(part(x), before, atol=1e-6)


def test_behind_a_grouped_convolution_channels_go_group_by_group() -> None:
    _, channels = _read(_Wide())
    stem = next(g for g in channels.groups if g.name == "stem")
    assert (stem.width, stem.carriers) == (3, ("grouped",))
    assert channels.layouts["stem"].outputs == (Piece("stem", 3, 2),)
    assert channels.layouts["grouped"].outputs == (Piece("stem", 3, 4),)
    assert {c.module: c.pieces for c in stem.consumers} == {n: (Piece("stem", 3, 4),) for n in ("one", "two")}


class _Chain(nn.Module):
    """Three convolutions, with an operation behind each of the first two."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 5, 1)
        self.between, self.fc = between, nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.three(self.between(self.two(self.between(self.one(x))))).flatten(1))


def _free(between: Callable[[Tensor], Tensor]) -> set[str]:
    traced = trace(_Chain(between).eval(), nets.spec("cnn", 2, 1))
    output = next(n for n in traced.graph_module.graph.nodes if n.op == "output")
    return {g.name for g in channel_groups(traced.graph_module, traced.shapes, output.args[0]).groups}


def test_a_copy_carries_channels() -> None:
    assert _free(lambda x: x.clone()) == {"one", "two", "three"}


def test_what_has_parameters_or_buffers_and_is_called_twice_keeps_its_channels() -> None:
    assert _free(nn.ReLU()) == {"one", "two", "three"}
    assert _free(nn.BatchNorm2d(4)) == {"three"}
    assert _free(nn.BatchNorm2d(4, affine=False)) == {"three"}


class _Adding(nn.Module):
    """Adds to an activation after a layer has read it, in place or not."""

    def __init__(self, add: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 5, 1)
        self.add, self.fc = add, nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.fc(self.three(self.add(x, self.two(x))).flatten(1))


def test_what_is_changed_in_place_can_be_pruned_as_what_is_not() -> None:
    plain, changed = (
        open_tail(trace(_Adding(add).eval(), nets.spec("cnn", 2, 1)), "input", [0, 1], residual=True)
        for add in (lambda x, y: x.add(y), lambda x, y: x.add_(y))
    )
    assert any(node.target == "clone" for node in changed.part.graph.nodes)
    assert {g.name: g.producers for g in plain.groups} == {"one": ("one", "two"), "three": ("three",)}
    for ours, theirs in zip(changed.groups, plain.groups, strict=True):
        assert (ours.name, ours.producers, ours.residual) == (theirs.name, theirs.producers, theirs.residual)
    assert changed.tap_groups == plain.tap_groups


def test_a_concatenation_is_read_piece_by_piece() -> None:
    _, channels = _read(_Wide())
    layouts = channels.layouts
    assert layouts["both"].inputs == layouts["norm"].outputs == (Piece("one", 4, 2), Piece("two", 5, 2))
    assert layouts["fc"].inputs == (Piece("one", 4, 4), Piece("two", 5, 4), Piece("both", 7, 4))
    assert {g.name for g in channels.groups} == {"stem", "one", "two", "both"}


def test_a_layer_that_reads_something_unknown_still_makes_channels_of_its_own() -> None:
    spec = nets.spec("torchvision/shufflenet_v2_x0_5", 64)
    traced = trace(build_network(spec, device="meta"), spec)
    output = next(n for n in traced.graph_module.graph.nodes if n.op == "output")
    channels = channel_groups(traced.graph_module, traced.shapes, output.args[0])
    last = next(g for g in channels.groups if g.name == "conv5.0")
    assert (last.width, [c.module for c in last.consumers]) == (1024, ["fc"])


KEPT = {"stem": [0, 2], "one": [1, 2], "two": [0, 3, 4], "both": [2, 6]}


@torch.no_grad()
def test_removing_from_grouped_and_concatenated_layers_is_zeroing_what_is_read() -> None:
    part, channels = _read(_Wide())
    kept, x = {name: torch.tensor(indices) for name, indices in KEPT.items()}, torch.randn(3, 1, 2, 2)
    expected = parameter_count(part, channels.layouts, {name: len(indices) for name, indices in kept.items()})
    for module, layout in channels.layouts.items():
        if layout.inputs:
            weight = part.get_submodule(module).weight
            gone = torch.ones(weight.shape[1], dtype=torch.bool)
            gone[kept_features(layout.inputs, kept)] = False
            weight[:, gone] = 0
    before = part(x)
    remove_channels(part, channels.layouts, kept)
    assert torch.allclose(part(x), before, atol=1e-6)
    assert sum(t.numel() for t in part.state_dict().values()) == expected
    grouped, depthwise = part.get_submodule("grouped"), part.get_submodule("depthwise")
    assert (grouped.in_channels, grouped.out_channels, grouped.groups) == (4, 8, 2)
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (5, 10, 5)


class _Tied(nn.Module):
    """Reads the second layer's weights twice: by calling the layer, and directly."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)
        self.inner = nn.Conv2d(4, 4, 1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.stem(x))
        return self.fc(self.flatten(F.conv2d(x, self.inner.weight)))


def test_a_layer_whose_weights_are_used_elsewhere_is_left_whole() -> None:
    _, channels = _read(_Tied())
    assert "inner" not in channels.layouts
    assert channels.groups == ()


class _Means(nn.Module):
    """Means over places in several notations, and one mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        names = ("squeezed", "kept", "tokens", "mixed")
        self.layers = nn.ModuleDict({name: nn.Conv2d(1, 4, 1) for name in names})
        self.ends = nn.ModuleDict({name: nn.Linear(1 if name == "mixed" else 4, 3) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        made = {name: layer(x) for name, layer in self.layers.items()}
        seen = {
            "squeezed": made["squeezed"].mean([2, 3]),
            "kept": torch.mean(made["kept"], dim=(-2, -1), keepdim=True).flatten(1),
            "tokens": made["tokens"].mean(3).mean(-1),
            "mixed": made["mixed"].mean((1, 2), keepdim=True).mean((2, 3)),
        }
        return sum((self.ends[name](y) for name, y in seen.items()), torch.zeros(1))


def test_a_mean_over_places_carries_channels_and_one_over_channels_does_not() -> None:
    _, channels = _read(_Means())
    assert {g.name for g in channels.groups} == {f"layers.{name}" for name in ("squeezed", "kept", "tokens")}


class _OwnConv(nn.Conv2d):
    """A layer class outside torch.nn, which torch.fx traces through."""


class _OwnNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)


class _OwnLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, bias=self.bias)


class _Named(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(input=x, weight=self.weight, bias=self.bias)


class _TracedThrough(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = _OwnConv(1, 6, 3, padding=1), _OwnNorm(6)
        self.two, self.grouped = _OwnConv(6, 8, 1), _OwnConv(8, 8, 1, groups=2)
        self.flatten = nn.Flatten()
        self.hidden, self.named, self.fc = _OwnLinear(32, 5), _Named(5, 4), _OwnLinear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.two(F.relu(self.norm(self.one(x)))))
        return self.fc(self.named(self.hidden(self.flatten(x))))


@torch.no_grad()
def test_layers_that_are_traced_through_are_layers() -> None:
    part, channels = _read(_TracedThrough())
    assert {g.name: (g.width, g.carriers) for g in channels.groups} == {"one": (6, ("norm",))}
    assert channels.logits is not None
    assert channels.logits.name == "fc"
    kept, x = torch.tensor([0, 2, 5]), torch.randn(3, 1, 2, 2)
    gone = [1, 3, 4]
    part.get_submodule("two").weight[:, gone] = 0
    before = part(x)
    remove_channels(part, channels.layouts, {"one": kept})
    assert part.get_submodule("norm").running_var.shape == (3,)
    assert torch.allclose(part(x), before, atol=1e-6)


class _Scaled(nn.Module):
    """Activation functions written as arithmetic with scalars, and one with a number per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Conv2d(1, 4, 1) for name in ("quick", "star", "each")})
        self.ends = nn.ModuleDict({name: nn.Conv2d(4, 3, 2) for name in self.layers})
        self.scale, self.bias = nn.Parameter(torch.full((1,), 0.9)), nn.Parameter(torch.full((1,), -0.4))
        self.own = nn.Parameter(torch.ones(4, 1, 1))
        self.flatten = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        quick, star, each = (layer(x) for layer in self.layers.values())
        made = {
            "quick": quick * torch.sigmoid(1.702 * quick),
            "star": self.scale * F.relu(star) ** 2 + self.bias,
            "each": each * self.own,
        }
        ends = [self.ends[name](y) for name, y in made.items()]
        return self.flatten((ends[0] + ends[1] + ends[2]) / 3)


@torch.no_grad()
def test_arithmetic_with_single_numbers_carries_channels() -> None:
    part, channels = _read(_Scaled())
    assert {g.name: g.residual for g in channels.groups} == {"layers.quick": False, "layers.star": False}
    assert channels.logits is not None
    assert set(channels.logits.producers) == {"ends.quick", "ends.star", "ends.each"}
    kept, x = {"layers.star": torch.tensor([0, 3])}, torch.randn(2, 1, 2, 2)
    part.get_submodule("ends.star").weight[:, [1, 2]] = 0
    before = part(x)
    remove_channels(part, channels.layouts, kept)
    assert torch.allclose(part(x), before, atol=1e-6)
    remove_channels(part, channels.layouts, {channels.logits.name: torch.tensor([2, 0])})
    assert torch.allclose(part(x), before[:, [2, 0]], atol=1e-6)


class _Gated(nn.Module):
    """A gated linear unit over channels that come last; `joins` says how its halves meet."""

    def __init__(self, joins: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Conv2d(3, 4, 2), nn.Linear(4, 12), nn.Linear(6, 5)
        self.fc, self.joins = nn.Linear(5, 3), joins

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.fc(F.relu(self.down(self.joins(value, gate))).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "joins",
    [
        lambda value, gate: value * torch.sigmoid(gate),
        lambda value, gate: F.gelu(gate) * value,
        lambda value, gate: value + gate,
    ],
)
@torch.no_grad()
def test_the_halves_of_a_gated_unit_are_cut_together(joins: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network, spec = _Gated(joins).eval(), nets.spec("own", 5, 3, "abc")
    tail = open_tail(trace(network, spec), "input", [0, 1, 2], residual=True)
    assert {g.name: g.width for g in tail.groups} == {"up": 6, "down": 5}
    kept = {"up": torch.tensor([0, 2, 5]), "down": torch.tensor([1, 4])}
    small = extract(tail, kept)
    assert small.part.get_parameter("up.weight").shape == (6, 4)
    assert torch.equal(small.part.get_parameter("up.weight"), network.up.weight[[0, 2, 5, 6, 8, 11]])
    assert tail.count({"up": 3, "down": 2}) == small.parameter_count
    x = nets.pictures(2, spec)
    tail.mask(kept)
    torch.testing.assert_close(small.forward(x)[0], tail.forward(x)[0])


@pytest.mark.parametrize(
    "joins",
    [
        lambda value, gate: torch.where(gate > 0, value, -value),  # not understood
        lambda value, gate: value * gate.mean(-1, keepdim=True),  # the halves never meet
        lambda value, gate: value.chunk(2, dim=-1)[0].repeat(1, 1, 2) + gate,
    ],
)
def test_halves_that_do_not_meet_stay_whole(joins: Callable[[Tensor, Tensor], Tensor]) -> None:
    tail = open_tail(trace(_Gated(joins).eval(), nets.spec("own", 5, 3, "abc")), "input", [0, 1, 2], residual=True)
    assert {g.name for g in tail.groups} == {"down"}
