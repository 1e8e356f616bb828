import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pnc_core.channels import Channels, channel_groups, parameter_count, remove_channels
from pnc_core.positions import trace
from tests.unit.pnc_core import nets


class _Net(nn.Module):
    """Two inner channels groups, one residual stream, one that a layer norm closes off."""

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


def _read() -> tuple[fx.GraphModule, Channels]:
    torch.manual_seed(0)
    traced = trace(_Net().eval(), nets.spec("cnn", 2, 1))
    output = next(n for n in traced.graph_module.graph.nodes if n.op == "output")
    return traced.graph_module, channel_groups(traced.graph_module, traced.shapes, output.args[0])


def test_a_group_has_its_producers_carriers_and_consumers() -> None:
    _, channels = _read()
    inner = next(g for g in channels.groups if g.name == "inner")
    assert (inner.width, inner.producers, inner.carriers) == (6, ("inner",), ("norm", "depthwise"))
    assert [(c.module, c.axis, c.repeat) for c in inner.consumers] == [("back", 1, 1)]
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
    assert [(c.module, c.repeat) for c in last.consumers] == [("fc", 4)]


def test_the_rows_of_the_logits_are_told_apart() -> None:
    _, channels = _read()
    assert channels.logits is not None
    assert (channels.logits.name, channels.logits.width) == ("fc", 3)


@pytest.mark.parametrize("sizes", [{"inner": 6, "stem": 4, "last": 5}, {"inner": 1, "stem": 3, "last": 2}])
def test_the_count_is_what_removal_leaves(sizes: dict[str, int]) -> None:
    part, channels = _read()
    expected = parameter_count(part, channels.groups, sizes)
    for group in channels.groups:
        remove_channels(part, group, torch.arange(sizes[group.name]))
    assert sum(t.numel() for t in part.state_dict().values()) == expected


def test_removing_dead_channels_changes_nothing_and_leaves_a_working_network() -> None:
    part, channels = _read()
    dead, x = torch.tensor([1, 3]), torch.randn(3, 1, 2, 2)
    for group in channels.groups:
        for consumer in group.consumers:
            weight = part.get_submodule(consumer.module).weight.data
            weight[:, torch.cat([dead * consumer.repeat + i for i in range(consumer.repeat)])] = 0
    before = part(x)
    for group in channels.groups:
        remove_channels(part, group, torch.tensor([i for i in range(group.width) if i not in dead]))
    assert torch.allclose(part(x), before, atol=1e-6)
