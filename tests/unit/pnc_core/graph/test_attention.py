import pytest
import torch
from torch import Tensor, nn

from pnc_core.graph.features import cut, run_part
from pnc_core.graph.positions import Traced, trace
from pnc_core.module.tail import copied_tensors, extract, open_tail, verify
from tests.unit.pnc_core import nets


class _Transformer(nn.Module):
    """A residual block of self-attention with four heads of two features."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        self.kind = kind
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=kind != "batch second", add_bias_kv=kind == "bias")
        self.hidden, self.fc = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).permute(0, 2, 1)
        y = self.norm(tokens)
        other = tokens if self.kind == "cross" else y
        answer, weights = self.attention(y, other, other, need_weights=self.kind == "weights")
        tokens = tokens + answer
        if self.kind == "weights":
            tokens = tokens * weights.mean()
        return self.fc(self.hidden(tokens).mean(1))


def _traced(kind: str = "plain") -> Traced:
    torch.manual_seed(0)
    network = _Transformer(kind).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return trace(network, nets.spec("cnn", 8, 1))


X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_an_opened_attention_answers_as_the_closed_one() -> None:
    traced = _traced()
    tail = open_tail(traced, "input", [0, 1, 2])
    assert "attention" in {g.name for g in tail.groups}
    assert torch.allclose(tail.forward(X)[0], run_part(cut(traced, "input", []), X)[0], atol=1e-6)


@torch.no_grad()
def test_whole_heads_are_removed() -> None:
    traced = _traced()
    tail = nets.calibrated(open_tail(traced, "input", [0, 1, 2]))
    group = next(g for g in tail.groups if g.name == "attention")
    assert (group.width, [c.module for c in group.consumers]) == (4, ["attention.out_proj"])
    kept = {g.name: torch.arange(g.width) for g in tail.groups} | {"attention": torch.tensor([1, 3])}
    small = extract(tail, kept)
    rows = torch.tensor([2, 3, 6, 7])
    copies, state = copied_tensors(small), traced.graph_module.state_dict()
    assert torch.equal(
        copies["attention.in_proj_weight"], state["attention.in_proj_weight"][torch.cat([rows, 8 + rows, 16 + rows])]
    )
    assert torch.equal(copies["attention.out_proj.weight"], state["attention.out_proj.weight"][:, rows])
    tail.mask(kept)
    masked = tail.forward(X)[0]
    assert torch.allclose(small.forward(X)[0], masked, atol=1e-6)
    tail.mask(None)
    assert not torch.allclose(tail.forward(X)[0], masked, atol=1e-3)
    assert (
        small.parameter_count
        == tail.count({name: len(indices) for name, indices in kept.items()})
        < tail.parameter_count
    )
    verify(small, traced, [0, 1, 2])


def test_opening_leaves_the_network_s_own_attention_closed() -> None:
    traced = _traced()
    open_tail(traced, "input", [0, 1])
    assert isinstance(traced.graph_module.get_submodule("attention"), nn.MultiheadAttention)


@pytest.mark.parametrize("kind", ["cross", "weights", "bias", "batch second"])
@torch.no_grad()
def test_an_unusual_attention_stays_closed_and_right(kind: str) -> None:
    traced = _traced(kind)
    tail = open_tail(traced, "input", [0, 1, 2])
    assert {g.name for g in tail.groups} <= {"hidden"}
    assert torch.allclose(tail.forward(X)[0], run_part(cut(traced, "input", []), X)[0], atol=1e-6)
