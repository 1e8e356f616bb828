"""Trace a network whose code computes with shapes: every tensor's shape is known from the input size.

The plain tracer of torch.fx cannot follow `if x.shape[2] % 2`, `range(len(x))` or the padding that TensorFlow calls
"same". Here each traced value is also computed, without memory, for two numbers of images. Numbers that are equal for
both become constants of the graph; numbers that differ depend on the number of images and stay symbolic.

Own choice: torch.fx has the experimental `MetaTracer` for this, which makes the number of images a constant, too.
"""

from collections.abc import Callable, Iterator
from operator import attrgetter, getitem
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.fx.node import map_arg

from pnc_core.config import NetworkSpec
from pnc_core.errors import NetworkError
from pnc_core.graph.tracing import Tracer

BATCHES = (2, 3)
"""Numbers of images for which every value is computed."""


class SizedTracer(Tracer):
    """A tracer that knows the shapes for one input size."""

    proxy_buffer_attributes = True

    def __init__(self, spec: NetworkSpec, device: torch.device) -> None:
        super().__init__()
        self._spec, self._device = spec, device
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._computing = False
        self._values: dict[fx.Node, tuple[Any, ...]] = {}
        """Fake tensors or numbers of every node, one for each of `BATCHES`."""

    @property
    def passive(self) -> bool:
        """Whether the current call is not a part of the trace."""
        return self._computing or super().passive

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace, and drop the nodes whose numbers have become constants."""
        graph = super().trace(root, concrete_args)
        for node in reversed(graph.nodes):
            values = self.values(node)
            if values and not node.users and not any(_has_tensor(value) for value in values):
                graph.erase_node(node)
        return graph

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """A node of the graph, whose values are computed at once."""
        node = super().create_node(*args, **kwargs)
        values = self._compute(node)
        if values is not None:
            self._values[node] = values
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A traced value with attributes that are known."""
        return _SizedProxy(node, self)

    def create_proxy(self, *args: Any, **kwargs: Any) -> Any:
        """A traced value, or a number where it is the same for every number of images."""
        proxy = super().create_proxy(*args, **kwargs)
        return _constant_or_proxy(proxy, self.values(proxy.node))

    def to_bool(self, obj: fx.Proxy) -> bool:
        """The truth value, if it is the same for every number of images."""
        values = self.values(obj.node)
        found = {bool(value) for value in values if not _has_tensor(value)}
        if len(found) != 1 or any(map(_has_tensor, values)):
            raise self._refused(obj, "branches")
        return found.pop()

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """The elements of a tensor or tuple."""
        return iter([getitem(obj, i) for i in range(self.length(obj))])

    def length(self, obj: fx.Proxy) -> int:
        """Length of a tensor or tuple, if it is the same for every number of images."""
        found = {len(value) for value in self.values(obj.node)}
        if len(found) != 1:
            raise self._refused(obj, "loops")
        return found.pop()

    def values(self, node: fx.Node) -> tuple[Any, ...]:
        """The values of a node, one for each of `BATCHES`; empty if they are not known."""
        return self._values.get(node, ())

    def _refused(self, obj: fx.Proxy, what: str) -> NetworkError:
        frame = self._find_user_frame()
        while frame is not None and frame.f_globals.get("__name__") in (__name__, fx.Proxy.__module__):
            frame = frame.f_back
        code = "" if frame is None else f" in {frame.f_code.co_qualname}, line {frame.f_lineno}"
        return NetworkError(
            f"network: expected a forward without {what} over pixel values or the number of images, "
            f"got {obj.node.name!r}{code}; compute both sides and select with torch.where"
        )

    def _compute(self, node: fx.Node) -> tuple[Any, ...] | None:
        """The values of a node; None where they depend on values that are not known."""
        if node.op == "output" or any(argument not in self._values for argument in node.all_input_nodes):
            return None
        self._computing = True
        try:
            with torch.inference_mode(False), torch.no_grad(), self._fake:
                return tuple(self._value(node, place) for place in range(len(BATCHES)))
        except (DataDependentOutputException, DynamicOutputShapeException):
            return None
        finally:
            self._computing = False

    def _value(self, node: fx.Node, place: int) -> Any:
        if node.op == "placeholder":
            return torch.zeros(BATCHES[place], *self._spec.input_size, device=self._device)
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: self._values[n][place])
        if node.op == "get_attr":
            return attrgetter(str(node.target))(self.root)
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]


class _SizedProxy(fx.Proxy):
    """A traced value with attributes that are known."""

    tracer: SizedTracer

    def __getattr__(self, k: str) -> Any:
        values = self.tracer.values(self.node)
        if not values or not hasattr(values[0], k) or callable(getattr(values[0], k)):
            return super().__getattr__(k)
        return self.tracer.create_proxy("call_function", getattr, (self, k), {})

    def __len__(self) -> int:
        return self.tracer.length(self)

    def __setitem__(self, places: Any, values: Any) -> None:
        self.tracer.create_proxy("call_function", set_elements_, (self, places, values), {})


def set_elements_(x: Tensor, places: Any, values: Any) -> Tensor:
    """`x[places] = values` as a function; changes `x` and returns it."""
    x[places] = values
    return x


def _constant_or_proxy(proxy: fx.Proxy, values: tuple[Any, ...]) -> Any:
    """The value if it is the same for every number of images and holds no tensor; of a tuple, element by element."""
    if not values or any(_has_tensor(value) for value in values):
        return proxy
    first = values[0]
    if all(type(value) is type(first) and value == first for value in values):
        return first
    if isinstance(first, tuple) and len({len(value) for value in values}) == 1:
        same = [len({value[i] for value in values}) == 1 for i in range(len(first))]
        return tuple(first[i] if same[i] else getitem(proxy, i) for i in range(len(first)))
    return proxy


def _has_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(map(_has_tensor, value)))
