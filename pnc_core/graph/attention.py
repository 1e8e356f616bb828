"""Split self-attention into two modules, so that whole heads can be gated and removed.

`nn.MultiheadAttention` is one module, and its projections must have equal input and output widths. It is replaced by
`Heads` (queries, keys, values and weighted sum; `size` neighbouring features per head) and the output projection. Both
share the tensors of the original layer, under the same names.

Own choice. Removing single heads is known (Michel, Levy, Neubig, "Are sixteen
heads really better than one?", NeurIPS 2019).
"""

from torch import Tensor, fx, nn
from torch.nn import functional as F


class Heads(nn.Module):
    """Tokens (N, T, E) -> outputs of the attention heads (N, T, heads x size), before the output projection."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj
        self.width, self.size = attention.embed_dim, attention.head_dim

    def forward(self, x: Tensor) -> Tensor:
        """softmax(Q K' / sqrt(size)) V per head; the number of heads follows from the rows of the weight."""
        rows = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (-1, self.size)).transpose(1, 2) for part in rows)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def open_attention(part: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Replace every plain `nn.MultiheadAttention` of a graph by `Heads` and a linear layer.

    Attention with masks, with separate keys and values, or with attention weights that another node reads is not
    replaced.

    Args:
        part: A graph that owns its modules; changed in place.
        shapes: Batched shape of every tensor node, by name.

    Returns:
        `shapes`, extended by the new nodes.
    """
    found = dict(shapes)
    calls = [n for n in part.graph.nodes if n.op == "call_module"]
    for node in calls:
        attention = part.get_submodule(str(node.target))
        once = [n.target for n in calls].count(node.target) == 1
        if once and isinstance(attention, nn.MultiheadAttention) and _plain(node, attention):
            (answer,) = node.users
            path, _, name = str(node.target).rpartition(".")
            setattr(part.get_submodule(path), name, Heads(attention))
            node.args, node.kwargs = node.args[:1], {}
            answer.op, answer.target, answer.args = "call_module", f"{node.target}.out_proj", (node,)
            found[node.name] = found[answer.name]
    part.recompile()
    return found


def _plain(node: fx.Node, attention: nn.MultiheadAttention) -> bool:
    """Is it batch-first self-attention without masks and extra tokens, of which only the output is read?"""
    same = attention.in_proj_weight is not None and attention.bias_k is None and not attention.add_zero_attn
    asked = len(node.args) == 3 and len(set(node.args)) == 1 and set(node.kwargs) <= {"need_weights"}
    answers = [(user.op, user.args[1:]) for user in node.users]
    return attention.batch_first and same and asked and answers == [("call_function", (0,))]
