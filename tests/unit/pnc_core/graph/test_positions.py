import copy
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from pnc_core.config import NetworkSpec
from pnc_core.errors import NetworkError, PositionError
from pnc_core.graph.architectures import build_network
from pnc_core.graph.features import Reader, cut, run_part, taps_behind
from pnc_core.graph.positions import INPUT, Traced, trace
from pnc_core.identity import fingerprint
from tests.unit.pnc_core import nets


def _listed(traced: Traced) -> list[tuple[str, tuple[int, ...]]]:
    return [(p.name, p.shape) for p in traced.positions]


def _meta(name: str, size: int = 32, channels: int = 3, **options: int) -> Traced:
    spec = nets.spec(name, size, channels, **options)
    return trace(build_network(spec, device="meta"), spec)


def test_positions_of_resnet20() -> None:
    assert _listed(_meta("resnet20")) == [
        ("input", (3, 32, 32)),
        ("stem", (16, 32, 32)),
        *[(f"layer1.{i}", (16, 32, 32)) for i in range(3)],
        *[(f"layer2.{i}", (32, 16, 16)) for i in range(3)],
        *[(f"layer3.{i}", (64, 8, 8)) for i in range(3)],
    ]


def test_positions_of_cnn() -> None:
    assert _listed(_meta("cnn", 8, 1, width=4)) == [
        ("input", (1, 8, 8)),
        ("blocks.0", (4, 8, 8)),
        ("blocks.1", (4, 4, 4)),
        ("blocks.2", (8, 2, 2)),
        ("blocks.3", (16, 2, 2)),
    ]


def test_positions_of_vgg() -> None:
    names = [name for name, _ in _listed(_meta("vgg"))]
    assert names == ["input", *(f"blocks.{i}" for i in range(7))]


def test_positions_of_a_torchvision_resnet18() -> None:
    found = _listed(_meta("torchvision/resnet18", 64))
    assert [name for name, _ in found] == [
        "input", "maxpool", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0",
        "layer4.1",
    ]  # fmt: skip
    assert dict(found)["maxpool"] == (64, 16, 16)
    assert dict(found)["layer4.1"] == (512, 2, 2)


def test_depth_grows_from_nothing_to_nearly_one() -> None:
    depths = [p.depth for p in _meta("resnet20").positions]
    assert depths == sorted(depths)
    assert depths[0] == 0
    assert depths[-1] == pytest.approx(19 / 20)


def test_channels_and_grid_follow_the_axis() -> None:
    swin = _meta("torchvision/swin_t", 64).position("features.7.0")
    assert (swin.axis, swin.channels, swin.grid) == (3, 768, (2, 2))
    tokens = _meta("torchvision/vit_b_16", 32).positions[-1]
    assert (tokens.axis, tokens.channels, tokens.grid) == (2, 768, (5,))
    maps = _meta("resnet20").positions[-1]
    assert (maps.axis, maps.channels, maps.grid) == (1, 64, (8, 8))


def test_channels_of_a_vision_transformer_are_last_from_the_first_token_on() -> None:
    assert {
        p.name: p.axis for p in _meta("torchvision/vit_b_16", 32).positions if len(p.shape) == 2 and p.axis != 2
    } == {}


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s32_224", "cait_xxs24_224", "resmlp_12_224"])
def test_patches_that_were_transposed_have_their_channels_last(name: str) -> None:
    positions = _meta(f"timm/{name}", 64).positions
    tokens = [p for p in positions if p.name != INPUT]
    assert len(tokens) >= 17
    assert {(p.axis, p.channels) for p in tokens} == {(2, tokens[-1].channels)}
    side = 2 if name == "mixer_s32_224" else 4
    assert {p.patches for p in tokens} == {(side, side)}
    assert {p.leading for p in tokens} <= {0, 1}


class _Tokens(nn.Module):
    """Turns a map into tokens, in one of several ways."""

    def __init__(self, turn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.turn, self.first, self.second, self.fc = turn, nn.Conv2d(3, 4, 2), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.turn(self.first(x).flatten(2))).mean(1))


@pytest.mark.parametrize(
    "turn",
    [
        lambda x: x.transpose(1, 2),
        lambda x: x.transpose(-1, -2),
        lambda x: x.transpose(dim0=2, dim1=1),
        lambda x: torch.transpose(x, 1, 2),
        lambda x: x.swapaxes(1, 2),
        lambda x: torch.swapdims(x, 1, 2),
        lambda x: x.permute(0, 2, 1),
        lambda x: x.permute((0, 2, -2)),
        lambda x: torch.permute(x, dims=(0, 2, 1)),
    ],
)
def test_channels_follow_every_way_of_turning_a_tensor(turn: Callable[[Tensor], Tensor]) -> None:
    positions = trace(_Tokens(turn).eval(), nets.spec("cnn", 6, 3, "abc")).positions
    assert [(p.shape, p.axis, p.patches) for p in positions[1:]] == [((25, 4), 2, (5, 5)), ((25, 5), 2, (5, 5))]


class _ScaledByAParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.fc, self.scale = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.scale.exp() * self.first(x)).flatten(2).mean(2))  # type: ignore[no-any-return]


def test_a_number_that_a_parameter_gives_does_not_say_where_the_channels_are() -> None:
    positions = trace(_ScaledByAParameter().eval(), nets.spec("cnn", 6, 3, "abc")).positions
    assert [(p.shape, p.axis) for p in positions] == [((3, 6, 6), 1), ((4, 16), 1)]


@pytest.mark.parametrize("name", nets.families())
def test_every_family_has_positions(name: str) -> None:
    large = name in ("torchvision/inception_v3", "torchvision/maxvit_t")
    positions = _meta(name, 224 if large else 64).positions
    names = [p.name for p in positions]
    assert len(names) >= 5
    assert names[0] == INPUT
    assert len(set(names)) == len(names)
    assert all(0 <= p.depth <= 1 for p in positions)


SMALL = [
    ("resnet20", 32), ("cnn", 16), ("vgg", 32), ("torchvision/resnet18", 32), ("torchvision/mobilenet_v2", 32),
    ("torchvision/densenet121", 32), ("torchvision/efficientnet_b0", 32), ("torchvision/shufflenet_v2_x0_5", 32),
    ("torchvision/convnext_tiny", 32), ("torchvision/swin_t", 32), ("torchvision/squeezenet1_0", 48),
    ("torchvision/googlenet", 32), ("torchvision/mnasnet0_5", 32), ("torchvision/regnet_y_400mf", 32),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size"), SMALL)
@torch.no_grad()
def test_reading_gives_the_logits_bit_for_bit_and_every_cut_continues_to_them(name: str, size: int) -> None:
    network, spec = nets.network(name, size)
    traced, x = trace(network, spec), nets.pictures(2, spec)
    names = [p.name for p in traced.positions]
    logits, activations = Reader(traced, names)(x)
    assert torch.equal(logits, network(x))
    assert list(activations) == names
    for info in traced.positions[:: max(1, len(names) // 6)]:
        assert activations[info.name].shape[1:] == info.shape
        continued, _ = run_part(cut(traced, info.name, []), activations[info.name].clone())
        assert torch.equal(continued, logits), info.name


@torch.no_grad()
def test_a_cut_hands_out_the_activations_behind_it() -> None:
    network, spec = nets.network("resnet20", 16, width=4)
    traced, x = trace(network, spec), nets.pictures(2, spec)
    _, activations = Reader(traced, [p.name for p in traced.positions])(x)
    behind = taps_behind(traced, "layer1.1")
    assert behind == ["layer1.2", "layer2.0", "layer2.1", "layer2.2", "layer3.0", "layer3.1", "layer3.2"]
    _, taps = run_part(cut(traced, "layer1.1", behind), activations["layer1.1"])
    assert all(torch.equal(tap, activations[name]) for name, tap in zip(behind, taps, strict=True))


class _InPlace(nn.Module):
    """Changes the images, and later an activation, in place after layers have read them."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change
        self.first, self.second, self.third = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 5, 1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) + self.change(x).mean(1, keepdim=True)
        x = self.second(x) + self.change(x)
        return self.fc(self.third(x).mean((2, 3)))


@pytest.mark.parametrize(
    "change",
    [
        nn.SiLU(inplace=True),
        lambda x: F.relu(x, inplace=True),
        lambda x: torch.relu_(x),
        lambda x: x.mul_(2),
        lambda x: x.flatten(1).neg_().view_as(x),
        lambda x: F.dropout(x, training=False).neg_(),
    ],
)
@torch.no_grad()
def test_what_is_read_is_not_changed_afterwards(change: Callable[[Tensor], Tensor]) -> None:
    network, spec = _InPlace(change).eval(), nets.spec("cnn", 4, 3, "abc")
    traced, x = trace(network, spec), nets.pictures(2, spec)
    names, before = [p.name for p in traced.positions], x.clone()
    logits, activations = Reader(traced, names)(x)
    assert torch.equal(logits, network(before.clone()))
    assert torch.equal(activations[INPUT], before)
    assert len(names) == 4
    for name in names[1:]:
        assert torch.equal(Reader(traced, [name], logits=False)(x)[1][name], activations[name]), name
    for name in names:
        phi = activations[name].clone()
        assert torch.equal(run_part(cut(traced, name, []), phi)[0], logits), name
        assert torch.equal(phi, activations[name]), name


def test_only_what_would_be_changed_is_copied() -> None:
    traced = trace(_InPlace(lambda x: x.neg_()).eval(), nets.spec("cnn", 4, 3, "abc"))
    names = [p.name for p in traced.positions]
    copies = [[n.name for n in cut(traced, INPUT, taps).graph.nodes if n.target == "clone"] for taps in ([], names[1:])]
    assert copies == [["x_copy"], ["x_copy", "add_copy"]]
    assert not [n for n in cut(traced, names[1], names[1:2], logits=False).graph.nodes if n.target == "clone"]


class _Odd(nn.Module):
    """Changes the image before the first layer; with `forgets` it does not use the result."""

    def __init__(self, *, forgets: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.forgets = forgets

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.first(x - 0.5))
        x + 1
        if self.forgets:
            torch.sigmoid_(x)
        return self.fc(self.second(x).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_network_that_treats_the_image_first_is_read_from_the_image_on() -> None:
    network, spec = _Odd().eval(), nets.spec("cnn", 8, 1, "abc")
    traced, x = trace(network, spec), torch.rand(2, 1, 8, 8)
    assert traced.positions[0].name == INPUT
    assert "sub" not in [p.name for p in traced.positions]
    assert torch.equal(Reader(traced, [traced.positions[-1].name])(x)[0], network(x))
    assert torch.equal(run_part(cut(traced, INPUT, []), x)[0], network(x))


class _Glances(_Odd):
    """Reads the result of a change in place, but not for the logits."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        torch.neg_(x).mean()
        x.mul_(2)
        return self.fc(self.second(x).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("network", [_Odd(forgets=True), _Glances()])
@torch.no_grad()
def test_a_change_in_place_is_read_without_its_result_being_named(network: nn.Module) -> None:
    spec = nets.spec("own", 8, 1, "abc")
    traced, x = trace(network.eval(), spec), nets.pictures(2, spec)
    names = [p.name for p in traced.positions]
    logits, activations = Reader(traced, names)(x.clone())
    assert torch.equal(logits, network(x.clone()))
    for name in names:
        assert torch.equal(run_part(cut(traced, name, []), activations[name].clone())[0], logits)


class _ThroughAView(_Odd):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x[:, 0].zero_()
        return self.fc(self.second(x).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_change_through_a_view_that_nothing_reads_is_refused() -> None:
    with pytest.raises(
        NetworkError, match=r"'zero_', whose result nothing reads; write x = f\(x\) in place of f\(x\)$"
    ):
        trace(_ThroughAView().eval(), nets.spec("own", 8, 1, "abc"))


def test_other_numbers_than_float32_are_refused() -> None:
    spec = nets.spec("cnn", 8, 1, "abc")
    for network in (build_network(spec), _Odd()):  # without and with a bias beside its convolutions
        with pytest.raises(NetworkError, match=r"expected float32 weights, got torch\.float16; call \.float"):
            trace(network.eval().half(), spec)


def test_a_tap_before_the_cut_is_refused() -> None:
    with pytest.raises(PositionError, match=r"behind 'layer2\.0'"):
        cut(_meta("resnet20"), "layer2.0", ["layer1.0"])


def test_an_unknown_position_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(PositionError, match=r"expected one of \['input', 'stem'.*got 'layer9'"):
        _meta("resnet20").position("layer9")


def test_train_mode_is_refused() -> None:
    network, spec = nets.network("cnn", 8, 1, width=4)
    with pytest.raises(NetworkError, match=r"expected eval mode everywhere, got train mode; call .eval\(\)"):
        trace(network.train(), spec)


def test_one_layer_in_train_mode_is_refused_too() -> None:
    network, spec = nets.network("cnn", 8, 1, width=4)
    network.blocks[1].train()
    before = fingerprint(network)
    try:
        with pytest.raises(NetworkError, match="eval mode"):
            trace(network, spec)
    finally:
        assert fingerprint(network) == before


def test_tracing_and_reading_leave_the_network_as_it_was() -> None:
    network, spec = nets.network("resnet20", 16, width=4)
    before, hooks = fingerprint(network), copy.copy(network._forward_hooks)
    modes = [m.training for m in network.modules()]
    grads = [p.requires_grad for p in network.parameters()]
    Reader(trace(network, spec), ["layer1.0"])(nets.pictures(2, spec))
    assert fingerprint(network) == before
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == grads
    assert network._forward_hooks == hooks


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize(
    ("path", "told"), [("", "the network itself"), ("blocks", "blocks"), ("blocks.1", r"blocks\.1")]
)
def test_hooks_on_what_is_traced_through_are_refused(register: str, path: str, told: str) -> None:
    network, spec = nets.network("cnn", 8, 1, width=4)
    seen: list[object] = []
    getattr(network.get_submodule(path), register)(lambda *values: seen.append(values))
    with pytest.raises(NetworkError, match=f"^network: expected forward hooks on .* alone, got some on {told}; remove"):
        trace(network, spec)
    assert not seen


@torch.no_grad()
def test_hooks_on_layers_stay() -> None:
    network, spec = nets.network("cnn", 8, 1, width=4)
    x = nets.pictures(2, spec)
    plain = network(x)
    network.fc.register_forward_hook(lambda module, given, made: made + 1)
    network.fc.register_forward_pre_hook(lambda module, given: (given[0] * 2,))
    logits = Reader(trace(network, spec), [])(x)[0]
    assert torch.equal(logits, network(x))
    assert not torch.equal(logits, plain)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "norm",
    [nn.utils.weight_norm, nn.utils.spectral_norm, parametrizations.weight_norm, parametrizations.spectral_norm],
)
@torch.no_grad()
def test_weights_that_are_made_anew_every_time_are_the_network_s(norm: Callable[[nn.Module], nn.Module]) -> None:
    network, spec = nets.network("cnn", 8, 1, width=4)
    norm(network.fc).eval()
    x = nets.pictures(2, spec)
    before = network(x)
    traced = trace(network, spec)
    assert type(network.fc.weight) is Tensor
    assert torch.equal(Reader(traced, [])(x)[0], before)


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3))) if x.sum() > 0 else self.fc(x.amax((2, 3)))


def test_a_network_that_cannot_be_traced_is_a_network_error() -> None:
    with pytest.raises(
        NetworkError, match=r"without branches over pixel values .* got 'gt' in _Branching\.forward, line"
    ):
        trace(_Branching().eval(), nets.spec("cnn", 8, 4))


def test_an_input_that_the_network_cannot_take_is_a_network_error_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    network, _ = nets.network("cnn", 8, 1, width=4)
    with pytest.raises(NetworkError, match="got"):
        trace(network, nets.spec("cnn", 8, 3))
    assert capfd.readouterr().err == ""


def test_a_spec_with_another_number_of_classes_than_logits_is_refused() -> None:
    network, _ = nets.network("cnn", 8, 1, classes="abcd", width=4)
    with pytest.raises(NetworkError, match="classes"):
        trace(network, nets.spec("cnn", 8, 1, classes="abc"))


class _WithChoices(nn.Module):
    """Has optional arguments besides the images, like timm's transformers, and passes them on to every block."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None, *rest: Tensor, scale: float = 2.0) -> Tensor:
        for layer in (self.first, self.second):
            x = layer(x) * scale
            if mask is not None:
                x = x * mask
        return self.fc(x.mean((2, 3)))


def test_what_may_be_given_beside_the_images_has_its_default() -> None:
    network, spec = _WithChoices().eval(), nets.spec("cnn", 8, 3, "abc")
    traced = trace(network, spec)
    assert [p.shape for p in traced.positions] == [(3, 8, 8), (4, 6, 6), (5, 4, 4)]
    x = nets.pictures(2, spec)
    assert torch.equal(traced.graph_module(x), network(x))
    assert torch.equal(Reader(traced, [traced.positions[1].name])(x)[0], network(x))


class _WithAConstant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)) * torch.ones(3))


def test_what_a_network_makes_in_passing_is_not_left_on_it() -> None:
    network, spec = _WithAConstant().eval(), nets.spec("cnn", 8, 3, "abc")
    names = set(vars(network))
    x = nets.pictures(2, spec)
    traced = trace(network, spec)
    assert set(vars(network)) == names
    assert torch.equal(traced.graph_module(x), network(x))


class _Keeping(nn.Module):
    """Stores its input in an attribute, in a dictionary and in a list."""

    def __init__(self, *, branches: bool) -> None:
        super().__init__()
        self.body, self.fc, self.branches = (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)),
            nn.Linear(5, 3),
            branches,
        )
        self.last: Tensor | None = None
        self.seen: dict[str, Tensor] = {}
        self.all: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.last = self.body(x)
        self.all.append(x)
        self.body.means = self.seen["means"] = means = x.mean((2, 3))
        return self.fc(-means if self.branches and means.sum() > 0 else means)


@pytest.mark.parametrize("branches", [False, True])
@torch.no_grad()
def test_what_a_network_keeps_is_what_it_kept_before(branches: bool) -> None:
    network, spec = _Keeping(branches=branches).eval(), nets.spec("cnn", 8, 3, "abc")
    _try_to_trace(network, spec)
    assert (network.last, network.seen, network.all, hasattr(network.body, "means")) == (None, {}, [], False)
    network(nets.pictures(2, spec))
    last, seen, means = network.last, dict(network.seen), network.body.means
    _try_to_trace(network, spec)
    assert network.last is last
    assert network.body.means is means
    assert network.seen == seen
    assert (len(network.all), network.all[0]) == (1, last)


def _try_to_trace(network: _Keeping, spec: NetworkSpec) -> None:
    with pytest.raises(NetworkError) if network.branches else nullcontext():
        trace(network, spec)


def test_several_threads_trace_one_network_that_makes_constants() -> None:
    network, spec = _WithAConstant().eval(), nets.spec("cnn", 8, 3, "abc")
    names, failed, interval = set(vars(network)), [], sys.getswitchinterval()

    def run() -> None:
        try:
            for _ in range(10):
                trace(network, spec)
        except NetworkError as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failed
    assert set(vars(network)) == names


@pytest.mark.parametrize("width", ["0_5", "1_0", "2_0"])
def test_channels_that_are_shuffled_are_still_the_second_axis(width: str) -> None:
    positions = _meta(f"torchvision/shufflenet_v2_x{width}", 224).positions
    assert {p.axis for p in positions} == {1}
    assert all(p.grid == (p.shape[1], p.shape[2]) for p in positions)


def test_networks_can_be_run_while_others_are_traced() -> None:
    """torch.fx patches nn.Module during a trace; networks in other threads must not be affected."""
    network, spec = nets.network("resnet20", 16, width=4)
    x, failed, stop = nets.pictures(2, spec), [], threading.Event()
    with torch.no_grad():
        wanted = network(x)
    answers = []

    def run() -> None:
        try:
            while not stop.is_set():
                with torch.no_grad():
                    answers.append(torch.equal(network(x), wanted))
        except BaseException as error:  # any error fails the test
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        assert len(trace(*nets.network("resnet20", 16, width=4)).positions) > 5
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert answers
    assert all(answers)
