"""Networks whose code computes with shapes, in the ways that a torch.fx tracer cannot follow by itself."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.errors import NetworkError
from pnc_core.graph.features import Reader
from pnc_core.graph.positions import trace
from pnc_core.graph.tracing import Tracer
from tests.unit.pnc_core import nets

SPEC = nets.spec("cnn", 9, 3, "abc")


class _Shaped(nn.Module):
    """Two convolutions with code between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.between(self.first(x))).mean((2, 3)))  # type: ignore[no-any-return]


def _same_padding(x: Tensor) -> Tensor:
    """The padding of TensorFlow's "same", as timm's `tf_` networks compute it."""
    total = [max((math.ceil(n / 2) - 1) * 2 + 3 - n, 0) for n in x.size()[-2:]]
    if any(total):
        x = F.pad(x, [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2])
    return x


def _windows(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    if height % 2:
        x = x[:, :, : height - 1, : width - 1]
    x = x.view(batch, channels, (height - height % 2) // 2, 2, -1).transpose(2, 3)
    return x.reshape(batch, channels, -1, width - width % 2)


def _rows(x: Tensor) -> Tensor:
    return torch.stack([row * (i + 1) for i, row in enumerate(x.unbind(2))], dim=2)


def _rows_by_length(x: Tensor) -> Tensor:
    turned = x.permute(2, 0, 1, 3)
    return torch.stack([turned[i] * i for i in range(len(turned))], dim=2)


def _grid(x: Tensor) -> Tensor:
    return x + torch.arange(x.shape[-1], device=x.device, dtype=x.dtype) if x.shape[-1] > 1 else x


def _asserting(x: Tensor) -> Tensor:
    assert x.ndim == 4, "expected a map"
    assert x.dim() == len(x.shape)
    return x * (2 if x.is_floating_point() else 1)


def _assigning(x: Tensor) -> Tensor:
    x = x * 2
    x[:, :, 0, 1:3] = x[:, :, 1, 1:3] - 1
    return x


WAYS = [_assigning, _same_padding, _windows, _rows, _rows_by_length, _grid, _asserting]


@pytest.mark.parametrize("between", WAYS)
@torch.no_grad()
def test_a_network_that_computes_with_shapes_is_traced_for_its_input_size(between: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network = _Shaped(between).eval()
    with pytest.raises(Exception, match=r"Proxy|symbolic|iterated|'len'"):  # the plain tracer cannot follow
        Tracer().trace(network)
    traced = trace(network, SPEC)
    names = [p.name for p in traced.positions]
    assert len(names) >= 3
    for count in (1, 2, 5):
        x = nets.pictures(count, SPEC)
        logits, taps = Reader(traced, names)(x)
        assert torch.equal(logits, network(x))
        assert [tuple(t.shape) for t in taps.values()] == [(count, *p.shape) for p in traced.positions]


def test_numbers_that_became_constants_leave_no_nodes() -> None:
    traced = trace(_Shaped(_same_padding).eval(), SPEC)
    assert {n.target for n in traced.graph_module.graph.nodes if n.op == "call_function"} == {F.pad}
    assert not [n for n in traced.graph_module.graph.nodes if n.target == "size"]


def test_shapes_stay_unknown_where_the_code_does_not_need_them() -> None:
    traced = trace(_Shaped(lambda x: x.view(x.shape[0], x.shape[1], 7, 7)).eval(), SPEC)
    assert [n.target for n in traced.graph_module.graph.nodes if n.op == "call_function"].count(getattr) == 2


def _branch_on_pixels(x: Tensor) -> Tensor:
    return -x if x.sum() > 0 else x


def _branch_on_images(x: Tensor) -> Tensor:
    return -x if x.shape[0] > 2 else x


def _loop_over_images(x: Tensor) -> Tensor:
    return torch.stack([-image for image in x])


@pytest.mark.parametrize(
    ("between", "told"),
    [
        (_branch_on_pixels, "branches over pixel values or the number of images, got 'gt' in _branch_on_pixels, line"),
        (_branch_on_images, "branches over pixel values or the number of images, got 'gt' in _branch_on_images, line"),
        (_loop_over_images, "loops over pixel values or the number of images, got 'first' in _loop_over_images, line"),
    ],
)
def test_code_that_depends_on_the_images_is_refused_with_its_place(
    between: Callable[[Tensor], Tensor], told: str
) -> None:
    with pytest.raises(NetworkError, match=f"^network: expected a forward without {told} .*torch.where$"):
        trace(_Shaped(between).eval(), SPEC)


def test_a_wrong_shape_is_a_network_error_and_nothing_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    def between(x: Tensor) -> Tensor:
        return x + torch.zeros(x.shape[2] + 1)

    with pytest.raises(NetworkError, match="can trace, got RuntimeError"):
        trace(_Shaped(between).eval(), SPEC)
    assert capfd.readouterr().err == ""


@torch.no_grad()
def test_a_buffer_takes_part_in_what_depends_on_the_number_of_images() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shift", torch.randn(1, 4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] > 1:
                return x + self.shift.expand(x.shape[0], -1, -1, -1)  # type: ignore[no-any-return, operator]
            return x

    network = _Shaped(Tokens()).eval()
    x = nets.pictures(3, SPEC)
    assert torch.equal(Reader(trace(network, SPEC), [])(x)[0], network(x))
