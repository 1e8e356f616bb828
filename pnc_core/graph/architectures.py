"""Build a network by its name on a list.

`cifar/<name>`: networks for small images as they are published (`pnc_core.networks`). `torchvision/<name>`: each
classifier of torchvision. `timm/<name>`: each network of timm, if timm is installed. The older names of this library
stay for models and bundles that use them: `resnet20|32|56` (He et al. 2016, section 4.2, zeros behind the channels of
shortcuts), `cnn`, `vgg` and `mobilenetv2` (small networks). A name is looked up in a table. It never becomes an import
or a download.
"""

from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pnc_core.config import NetworkSpec
from pnc_core.errors import ConfigError, NetworkError, UnknownArchitecture, WeightsMismatch, is_out_of_memory
from pnc_core.networks import dense, mobile, plain, preactivation, residual
from pnc_core.networks.options import whole
from pnc_core.spelling import did_you_mean
from pnc_core.tensorfile import read_header
from pnc_core.vision import timm_package, torchvision_models

Builder = Callable[..., nn.Module]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that pads channels with zeros (option A, no parameters)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU()
        self.stride, self.padding = stride, channels_out - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.padding:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.padding))
        return self.relu2(y + x)  # type: ignore[no-any-return]


class CifarResNet(nn.Module):
    """Three stages of basic blocks at `width`, 2 `width` and 4 `width` channels."""

    def __init__(self, blocks: int, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.stem = ConvBlock(channels, width, pool=False)
        widths = [width, width, 2 * width, 4 * width]
        stages = []
        for stage, (before, after) in enumerate(pairwise(widths)):
            rest = [BasicBlock(after, after, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(BasicBlock(before, after, 2 if stage else 1), *rest))
        self.layer1, self.layer2, self.layer3 = stages
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> logits (N, classes)."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return self.fc(self.flatten(self.pool(x)))  # type: ignore[no-any-return]


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, ReLU and, if asked, 2x2 max pooling."""

    def __init__(self, channels_in: int, channels_out: int, *, pool: bool) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(channels_in, channels_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        ]
        super().__init__(*layers, *([nn.MaxPool2d(2)] if pool else []))


class Chain(nn.Module):
    """Convolution blocks one after another, global average pooling and a linear classifier."""

    def __init__(self, plan: list[tuple[int, bool]], channels: int, classes: int) -> None:
        super().__init__()
        widths = [channels, *(width for width, _ in plan)]
        self.blocks = nn.Sequential(
            *(ConvBlock(a, b, pool=pool) for (a, b), (_, pool) in zip(pairwise(widths), plan, strict=True))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> logits (N, classes)."""
        return self.fc(self.flatten(self.pool(self.blocks(x))))  # type: ignore[no-any-return]


def _cifar_resnet(blocks: int, spec: NetworkSpec, *, width: int = 16) -> nn.Module:
    return CifarResNet(blocks, spec.input_size[0], len(spec.classes), whole("width", width))


def _cnn(spec: NetworkSpec, *, width: int = 32) -> nn.Module:
    w = whole("width", width)
    plan = [(w, False), (w, True), (2 * w, True), (4 * w, False)]
    return Chain(plan, spec.input_size[0], len(spec.classes))


def _vgg(spec: NetworkSpec, *, width: int = 32) -> nn.Module:
    w = whole("width", width)
    plan = [(w, False), (w, True), (2 * w, False), (2 * w, True), (4 * w, False), (4 * w, True), (4 * w, False)]
    return Chain(plan, spec.input_size[0], len(spec.classes))


def _mobilenet(spec: NetworkSpec, *, width: int = 32) -> nn.Module:
    w = whole("width", width)
    # Expansion, channels, repeats, stride: the published plan without the strides that small images cannot afford.
    plan = [[1, w // 2, 1, 1], [6, 3 * w // 4, 2, 1], [6, w, 2, 2], [6, 2 * w, 2, 2], [6, 3 * w, 1, 1]]
    network = torchvision_models().MobileNetV2(len(spec.classes), 1.0, plan, round_nearest=4, dropout=0.0)
    first, last, features = network.features[0][0], network.features[-1], 8 * w
    network.features[0][0] = nn.Conv2d(spec.input_size[0], first.out_channels, 3, 2, 1, bias=False)
    network.features[-1] = type(last)(last[0].in_channels, features, 1, activation_layer=nn.ReLU6)
    network.classifier[1] = nn.Linear(features, len(spec.classes))
    return network  # type: ignore[no-any-return]


def _torchvision(name: str, spec: NetworkSpec) -> nn.Module:
    if spec.input_size[0] != 3:
        raise NetworkError(f"torchvision/{name}: expected input_size with 3 channels, got {spec.input_size[0]}")
    extra: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name == "googlenet" or name == "inception_v3":
        extra["aux_logits"] = False
    if name.startswith("vit_"):
        extra["image_size"] = spec.input_size[1]
    if name.startswith("maxvit"):
        extra["input_size"] = spec.input_size[1:]
    network: nn.Module = torchvision_models().get_model(name, weights=None, num_classes=len(spec.classes), **extra)
    return network


def _timm(name: str, spec: NetworkSpec) -> nn.Module:
    timm = timm_package()
    assert timm is not None
    channels, *size = spec.input_size
    # Transformers with a position for every patch are built for one size; the others take any.
    known = timm.get_pretrained_cfg(name)
    fixed = {"img_size": tuple(size)} if known is not None and known.fixed_input_size else {}
    network: nn.Module = timm.create_model(
        name, pretrained=False, num_classes=len(spec.classes), in_chans=channels, **fixed
    )
    return network


@cache
def architectures() -> dict[str, Builder]:
    """Builders by name, except timm's, which need an extra."""
    models = torchvision_models()
    table: dict[str, Builder] = {f"resnet{6 * n + 2}": partial(_cifar_resnet, n) for n in (3, 5, 9)}
    table |= {"cnn": _cnn, "vgg": _vgg, "mobilenetv2": _mobilenet}
    for family in (residual, preactivation, plain, dense, mobile):
        table |= family.BUILDERS
    return table | {f"torchvision/{name}": partial(_torchvision, name) for name in models.list_models(module=models)}


@cache
def timm_architectures() -> dict[str, Builder]:
    """Builders of timm's own networks by name, without those of a hub; empty if timm is not installed."""
    timm = timm_package()
    return {f"timm/{name}": partial(_timm, name) for name in (timm.list_models() if timm else ())}


class _EmptyOnMeta(TorchFunctionMode):
    """Put the tensors of `torch.empty`, which are the weights, on the meta device, and no others.

    RegNet, Swin and MaxViT compute widths and rates with small tensors that need values.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        meta = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **meta})


def _without_memory(build: Callable[[], nn.Module]) -> nn.Module:
    """Build on the meta device where the network allows it; some of timm's run their own layers to learn shapes."""
    try:
        with _EmptyOnMeta():
            return build()
    except RuntimeError:
        return build()


def build_network(spec: NetworkSpec, *, device: str = "cpu") -> nn.Module:
    """Build the network that `spec` names, in eval mode, with fresh weights.

    Args:
        spec: Architecture, its options, classes and input size.
        device: On `meta` tensors have shapes and no memory.

    Raises:
        UnknownArchitecture: the name is not on the list.
        ConfigError: an option is unknown or out of range.
        NetworkError: the architecture does not take this input size, or does not build on this device.
    """
    table = timm_architectures() if spec.architecture.startswith("timm/") else architectures()
    builder = table.get(spec.architecture)
    if builder is None:
        names = [*architectures(), *timm_architectures()]
        raise UnknownArchitecture(_unknown(spec.architecture) + did_you_mean(spec.architecture, names))
    try:
        if device == "meta":
            return _without_memory(partial(builder, spec, **spec.options)).eval().to("meta")
        return builder(spec, **spec.options).to(device).eval()
    except TypeError as error:
        raise ConfigError(f"options of {spec.architecture}: got {spec.options}, {error}") from None
    except (AssertionError, ValueError, RuntimeError) as error:
        if isinstance(error, ConfigError) or is_out_of_memory(error):
            raise
        raise NetworkError(
            f"{spec.architecture}: expected one that builds on {device!r} for input_size {spec.input_size}, got {error}"
        ) from None


def _unknown(name: str) -> str:
    if name.startswith("timm/") and not timm_architectures():
        return f"architecture: expected timm to be installed for {name!r}, got none; pip install 'pnc-zoo[timm]'"
    own = sorted(known for known in architectures() if "/" not in known)
    return f"architecture: expected one of {own}, cifar/<name>, torchvision/<classifier> or timm/<name>, got {name!r}"


def load_weights(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Copy `state` into `network`, which is changed in place and returned.

    Raises:
        WeightsMismatch: a tensor is missing, unexpected, of another shape or dtype, or not finite.
    """
    check_weights(network, state)
    whole = network.state_dict()  # has the versions of the layers, without which MNASNet loads nothing
    whole.update(state)
    network.load_state_dict(whole)
    return network


def load_network(spec: NetworkSpec, path: Path | str) -> nn.Module:
    """Build a network and give it the weights of a safetensors file, in eval mode.

    Names and shapes are compared on the meta device before the network is allocated.

    Raises:
        TensorFileError: the file is damaged or not safetensors.
        WeightsMismatch: the weights are not this architecture's.
        NetworkError: the spec cannot be built.
    """
    read_header(Path(path))
    state = safetensors.torch.load_file(path)
    check_weights(build_network(spec, device="meta"), state)
    return load_weights(build_network(spec), state)


def check_weights(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Compare `state` with the tensors of `network`, which may be on the meta device.

    Raises:
        WeightsMismatch: a tensor is missing, unexpected, of another shape or dtype, not finite, or a negative variance.
    """
    expected = network.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        raise WeightsMismatch(
            f"weights: expected the {len(expected)} tensors of this architecture, got {len(state)}; "
            f"missing {_some(missing)}, unexpected {_some(extra)}; check architecture, options and classes"
        )
    for name, tensor in expected.items():
        got = state[name]
        if got.shape != tensor.shape or got.dtype != tensor.dtype:
            raise WeightsMismatch(
                f"weights: tensor {name!r} expected {tensor.dtype} {tuple(tensor.shape)}, "
                f"got {got.dtype} {tuple(got.shape)}; check architecture, options and classes"
            )
        if got.is_floating_point() and not bool(torch.isfinite(got).all()):
            raise WeightsMismatch(f"weights: tensor {name!r} expected finite numbers, got inf or nan")
        if name.endswith("running_var") and bool((got < 0).any()):
            raise WeightsMismatch(
                f"weights: tensor {name!r} expected variances of 0 or more, got {float(got.min()):g}; train again"
            )


def _some(names: list[str]) -> str:
    return f"{names[:4]}{' ...' if len(names) > 4 else ''}" if names else "none"
