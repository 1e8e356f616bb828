"""A CUDA device that is pretended: numbers are worked out on the processor, rules about devices are CUDA's.

Inside of `cuda()` tensors may be put on `cuda`. Every operation is run for real, so that code which looks at values
takes the branches that it takes on a GPU, and is refused where CUDA would refuse it: operands on two devices,
`numpy()` of a tensor that is not on the processor, a processor's random generator for a tensor on the GPU. Of a CPU
operand CUDA allows a number without dimensions, the indices of `x[indices]`, and what is copied from or to.

`FakeTensorMode` has the same rules and no values; `test_pretended` holds one to the other.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_only
from torch.utils.flop_counter import _FlopCounterMode

CUDA, CPU, META = torch.device("cuda", 0), torch.device("cpu"), torch.device("meta")
aten = torch.ops.aten
_COPIES = {aten.copy_.default, aten._to_copy.default, aten.to.device, aten.set_.source_Tensor}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""Their first operand says which device the others have to be on; indices may be on the processor as well."""

_TO = {Tensor.to: None, Tensor.cpu: CPU, Tensor.cuda: CUDA}
_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
_LOWERED = {
    *(F.linear, F.conv2d, torch.conv2d, F.scaled_dot_product_attention, torch.einsum, torch.addmm, torch.mm, torch.bmm),
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.bmm),
}
_WIDENED = {
    *(F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax, F.cross_entropy, F.log_softmax, F.kl_div),
    *(torch.pow, Tensor.pow, torch.exp, Tensor.exp, Tensor.log_softmax, torch.cumsum, Tensor.prod, torch.prod),
}


class OnCuda(Tensor):
    """A tensor that says it is on the GPU; its numbers are in `numbers`, on the processor.

    To torch's own machinery it is on `meta`, since gradients on `cuda` take a torch that was built for it.
    """

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "OnCuda":
        made: OnCuda = Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=META,
            requires_grad=numbers.requires_grad,
        )
        made.numbers = numbers.detach()
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it says it is."""
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """Whether it says it is on the GPU."""
        return True

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"OnCuda({self.numbers!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnCuda":
        if id(self) not in memo:
            made = OnCuda(self.numbers.clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                made._is_param = True  # how torch tells parameters of other classes
            memo[id(self)] = made
        return memo[id(self)]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation, on the device that its operands and its `device` say."""
    leaves = [*_leaves(args), *_leaves(kwargs.values())]
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    where = _place(func, args, kwargs, tensors)
    _check_generator(leaves, where)
    answer = func(*_plain(args), **{name: CPU if name == "device" else _plain(v) for name, v in kwargs.items()})
    if where != CUDA:
        return answer
    written = _written(func, args, kwargs)
    if written is None:
        # A view is an inference tensor if what it is of is one.
        normal = any(a.alias_info for a in func._schema.returns) and not any(t.is_inference() for t in tensors)
        with torch.inference_mode(mode=torch.is_inference_mode_enabled() and not normal):
            return tree_map_only(Tensor, OnCuda, answer)
    if written.size() != written.numbers.size():
        raise NotImplementedError(f"{func} changes a shape in place: not pretended")
    return written


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _plain(value: Any) -> Any:
    """The same with numbers in place of tensors on the GPU."""
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value.numbers if isinstance(value, OnCuda) else value


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> OnCuda | None:
    """The operand that is written to and is the answer, as of `add_` and of `out=`."""
    schema = func._schema
    if len(schema.returns) != 1 or schema.returns[0].alias_info is None or not schema.returns[0].alias_info.is_write:
        return None
    given = {**dict(zip((a.name for a in schema.arguments), args, strict=False)), **kwargs}
    written: OnCuda = next(
        given[a.name] for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write
    )
    return written


def _place(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> torch.device:
    """Where the answer is.

    Raises:
        RuntimeError: operands are on two devices.
    """
    if kwargs.get("device") is not None:
        wanted = torch.device(kwargs["device"])
        # Inside of torch a tensor in the likeness of one on the GPU is asked for on `meta`.
        return (
            CUDA
            if wanted.type == "cuda" or (wanted == META and any(isinstance(t, OnCuda) for t in tensors))
            else wanted
        )
    if not tensors:
        return CPU
    if func in _COPIES:
        return tensors[0].device
    if func in _INDEXED:
        indices = [index for index in args[1] if index is not None]
        values = [t for t in tensors[1:] if t.ndim and all(t is not index for index in indices)]
        _check(func, tensors[0].device, [*values, *(t for t in indices if t.device != CPU)])
        return tensors[0].device
    sized = [t for t in tensors if t.ndim or t.device != CPU]
    where = next((t.device for t in sized), CPU)
    _check(func, where, sized)
    return where


def _check(func: Any, where: torch.device, tensors: list[Tensor]) -> None:
    if any(t.device != where for t in tensors):
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found at least two devices")


def _check_generator(leaves: list[Any], where: torch.device) -> None:
    for leaf in leaves:
        if isinstance(leaf, torch.Generator) and leaf.device.type != where.type:
            raise RuntimeError(f"Expected a {where.type!r} device type for generator but found {leaf.device.type!r}")


class _Slopes(TorchDispatchMode):
    """Torch makes numbers for gradients where it thinks that the others are."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.scalar_tensor.default and torch.device(kwargs.get("device") or CPU) == META:
            return OnCuda(func(*args, **{**kwargs, "device": CPU}))
        return func(*args, **kwargs)


class _Calls(TorchFunctionMode):
    """Sees calls before torch looks for a GPU that is not there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(not issubclass(kind, Tensor) for kind in types):  # a network that is traced
            return func(*args, **(kwargs or {}))
        return _call(func, args, kwargs or {})


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A call of torch's Python side: what has to do with devices is answered here."""
    if func in _TO:
        return _to((args[0], _TO[func]), kwargs) if _TO[func] else _to(args, kwargs)
    if isinstance(args[0] if args else None, OnCuda):
        if func is Tensor.tolist:
            return args[0].numbers.tolist()
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first")
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = _indexed(*args)
    if func == _SET_DATA:
        return _set_data(*args)
    if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
        return _made(func, args, kwargs)
    if func in (Tensor.backward, torch.autograd.grad):
        with _Slopes(), torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
    if torch.is_autocast_enabled("cuda"):
        args, kwargs = _cast(func, args, kwargs)
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _indexed(x: OnCuda, index: Any, *value: Any) -> tuple[Any, ...]:
    """Lists and numbers as tensors: torch itself would put them where it thinks `x` is."""
    several = index if isinstance(index, tuple) else (index,)
    given = tuple(torch.tensor(part) if isinstance(part, list) else part for part in several)
    numbers = [torch.tensor(v, dtype=x.dtype) if isinstance(v, float | int) else v for v in value]
    return (x, given if isinstance(index, tuple) else given[0], *numbers)


def _cast(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What torch.autocast does, which does not know these tensors; of its two lists what networks here call."""
    if func not in _LOWERED | _WIDENED:
        return args, kwargs
    dtype = torch.get_autocast_dtype("cuda") if func in _LOWERED else torch.float32

    def cast(x: OnCuda) -> Tensor:
        return x.to(dtype) if x.dtype in (torch.float32, torch.bfloat16, torch.float16) else x

    return tree_map_only(OnCuda, cast, (args, kwargs))


def _set_data(x: Tensor, other: Tensor) -> None:
    if isinstance(x, OnCuda) != isinstance(other, OnCuda):
        raise NotImplementedError("x.data = y where one of the two is on the GPU: not pretended")
    with torch._C.DisableTorchFunctionSubclass():
        _SET_DATA(x, other)
    if isinstance(x, OnCuda) and isinstance(other, OnCuda):
        x.numbers = other.numbers


def _to(args: Any, kwargs: dict[str, Any]) -> Tensor:
    """`Tensor.to` with torch's own reading of its arguments, in one differentiable step."""
    x, *rest = args
    copy = bool(kwargs.get("copy", False))
    if (rest and isinstance(rest[0], Tensor)) or "other" in kwargs:
        other = kwargs.get("other", rest[0] if rest else None)
        device, dtype, layout = other.device, other.dtype, None
    else:
        named = {k: v for k, v in kwargs.items() if k in ("device", "dtype", "non_blocking", "memory_format")}
        device, dtype, _, layout = torch._C._nn._parse_to(*rest[:2], **named)
    device, dtype = device or x.device, dtype or x.dtype
    if META in (device, x.device):
        with torch._C.DisableTorchFunctionSubclass():
            return (x.numbers if isinstance(x, OnCuda) else x).to(device, dtype)
    keeps = layout is None or layout is torch.preserve_format or x.is_contiguous(memory_format=layout)
    if not copy and device.type == x.device.type and dtype == x.dtype and keeps:
        return x
    return _Moved.apply(x, device, dtype, layout or torch.preserve_format)


class _Moved(torch.autograd.Function):
    """A copy on another device, or of another type; its gradient goes back to where it came from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, device: torch.device, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
        ctx.was = x.device, x.dtype
        numbers = x.numbers if isinstance(x, OnCuda) else x.detach()
        numbers = torch.empty_like(numbers, dtype=dtype, memory_format=layout).copy_(numbers)
        return OnCuda(numbers) if device.type == "cuda" else numbers

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        device, dtype = ctx.was
        return _to((slope,), {"device": device, "dtype": dtype}), None, None, None


def _made(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What a function makes on the GPU from numbers, or in the likeness of a tensor."""
    _check_generator([kwargs.get("generator")], CUDA)
    learned = bool(kwargs.get("requires_grad", False))
    rest = {k: v for k, v in kwargs.items() if k not in ("device", "requires_grad")}
    args, rest = tree_map(lambda leaf: leaf.numbers if isinstance(leaf, OnCuda) else leaf, (args, rest))
    answer = func(*args, **rest, device="cpu")
    return tree_map_only(Tensor, OnCuda, answer).requires_grad_(learned)


@contextmanager
def cuda() -> Iterator[None]:
    """Let this thread put tensors on a GPU that is pretended; what is there stays there afterwards."""
    with _Calls(), _autocast_for_cuda(), _counted():
        yield


@contextmanager
def _autocast_for_cuda() -> Iterator[None]:
    """torch.autocast refuses CUDA where there is none."""
    common = torch.cuda.amp.common
    before: tuple[Callable[[], bool], Callable[..., bool]] = (
        common.amp_definitely_not_available,
        torch.cuda.is_bf16_supported,
    )
    with _PATCHING:
        common.amp_definitely_not_available = lambda: False
        torch.cuda.is_bf16_supported = lambda *_, **__: True
        try:
            yield
        finally:
            common.amp_definitely_not_available, torch.cuda.is_bf16_supported = before


@contextmanager
def _counted() -> Iterator[None]:
    """Torch's counter of operations takes a resize apart, and makes tensors on the GPU for it."""
    before = _FlopCounterMode.__torch_dispatch__

    def counted(self: _FlopCounterMode, func: Any, *given: Any) -> Any:
        with _Calls() if str(func).startswith("aten.upsample_nearest") else nullcontext():
            return before(self, func, *given)

    with _PATCHING:
        _FlopCounterMode.__torch_dispatch__ = counted
        try:
            yield
        finally:
            _FlopCounterMode.__torch_dispatch__ = before


_PATCHING = threading.RLock()
