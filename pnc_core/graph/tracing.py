"""The tracer of torch.fx with our rules: other threads run on, hooks are refused, only the images are unknown."""

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import fx, nn

from pnc_core.errors import NetworkError

_FAKE_TENSORS = logging.getLogger("torch._subclasses.fake_tensor")
_PREFIXES: dict[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Tracer(fx.Tracer):
    """A tracer that leaves other threads alone.

    torch.fx patches `nn.Module` while it traces. Calls from other threads get the original behaviour.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    @property
    def passive(self) -> bool:
        """Whether the current call is not a part of the trace."""
        return threading.get_ident() != self._thread

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """Trace the images only; every other argument takes its default, `*args` and `**kwargs` are empty.

        Raises:
            NetworkError: the network takes no images, or needs other arguments beside them.
        """
        parameters = [*inspect.signature(root_fn).parameters.values()][is_module:]
        fn, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        images = _images_argument(parameters)
        values = {_PREFIXES.get(p.kind, "") + p.name: _value_beside_images(p) for p in parameters if p != images}
        for place, arg in enumerate(args):  # match by name: torch.fx puts keyword-only arguments before `*args`
            name = str(arg.node.target) if isinstance(arg, fx.Proxy) else ""
            if name in values or name.startswith("*"):
                self.graph.erase_node(arg.node)
                args[place] = values[name] if name in values else (self.create_proxy("placeholder", name[1:], (), {}),)
        return fn, args

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a layer: a node for layers of torch.nn, the layer's own code otherwise."""
        if self.passive:
            return forward(*args, **kwargs)
        name = self.path_of_module(m)
        if not self.is_leaf_module(m, name):
            check_hooks(m, name)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """An attribute of a module."""
        if self.passive:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _images_argument(parameters: list[inspect.Parameter]) -> inspect.Parameter:
    """The argument that takes the images: the first positional one, or `*args` where there is none."""
    for kinds in (_POSITIONAL, (inspect.Parameter.VAR_POSITIONAL,)):
        for parameter in parameters:
            if parameter.kind in kinds:
                return parameter
    raise NetworkError(
        f"network: expected forward(images), got forward({', '.join(map(str, parameters))}); "
        "wrap the network in a module whose forward takes the images"
    )


def _value_beside_images(parameter: inspect.Parameter) -> Any:
    """Value of an argument that is not the images."""
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return ()
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return {}
    if parameter.default is inspect.Parameter.empty:
        raise NetworkError(
            f"network: expected a forward that needs the images only, got one that needs {parameter.name!r} as well; "
            "give that argument a default, or wrap the network in a module that passes it"
        )
    return parameter.default


def check_hooks(module: nn.Module, name: str) -> None:
    """Refuse hooks on a module that is traced through: during tracing they get no tensors, later they do not run."""
    if module._forward_hooks or module._forward_pre_hooks:
        raise NetworkError(
            f"network: expected forward hooks on single layers of torch.nn alone, got some on "
            f"{name or 'the network itself'}; remove them"
        )


def read_results(graph: fx.Graph) -> None:
    """After `x.add_(1)` let later nodes read its result instead of `x`: the tensor is the same, the order explicit."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        changed = node.args[0] if node.args and _is_in_place(node) else None
        if isinstance(changed, fx.Node):
            changed.replace_all_uses_with(node, delete_user_cb=partial(_is_behind, order, node))


def _is_behind(order: dict[fx.Node, int], node: fx.Node, user: fx.Node) -> bool:
    return order[user] > order[node]


def _is_in_place(node: fx.Node) -> bool:
    """Whether a node is a method or function that changes its first argument and returns it, by torch's naming rule."""
    if node.op not in ("call_method", "call_function"):
        return False
    name = str(getattr(node.target, "__name__", node.target))
    return name.endswith("_") and not name.endswith("__")


@contextmanager
def fake_tensors_silent() -> Iterator[None]:
    """Keep fake tensors from logging an error that is raised as well."""
    before, _FAKE_TENSORS.disabled = _FAKE_TENSORS.disabled, True
    try:
        yield
    finally:
        _FAKE_TENSORS.disabled = before
