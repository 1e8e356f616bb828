"""Repositories that publish networks for small images: their options, names of tensors and preprocessing.

References:
    The repositories, read in 2026. No code is taken from them; names and options are facts about their files.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pnc_core.networks import dense, mobile, plain, preactivation, residual
from pnc_core.networks import published_names as naming
from pnc_core.networks.published_names import Rules

Numbers = tuple[float, ...]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KUANGLIU = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_COMMON = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
_BYTES = tuple(x / 255 for x in (125.3, 123.0, 113.9)), tuple(x / 255 for x in (63.0, 62.1, 66.7))
_CIFAR100 = (0.50707516, 0.48654887, 0.44091784), (0.26733429, 0.25643846, 0.27615047)


@dataclass(frozen=True)
class Published:
    """Networks of one repository that share options and names."""

    origin: str
    """Owner and name of the repository, or a description."""
    architectures: tuple[str, ...]
    options: Mapping[str, int | float | bool | str] = field(default_factory=dict)
    names: Rules = ()
    pixels: Mapping[int, tuple[Numbers, Numbers]] = field(default_factory=dict)
    """Mean and standard deviation in its training script, by the number of classes: 10 or 100, for CIFAR."""

    def name(self, own: str) -> str:
        """The repository's name of a tensor."""
        for pattern, replacement in self.names:
            own = re.sub(pattern, replacement, own)
        return own


_THREE = tuple(f"cifar/resnet{depth}" for depth in residual.DEPTHS)
_FOUR = tuple(f"cifar/resnet{depth}" for depth in residual.STAGES)
_PREACT = tuple(f"cifar/preact-resnet{depth}" for depth in residual.STAGES)
_WIDE = tuple(f"cifar/wrn{depth}" for depth in preactivation.WIDE_DEPTHS)
_VGG = tuple(f"cifar/vgg{depth}" for depth in plain.VGG)
_REPVGG = tuple(f"cifar/repvgg-{kind}" for kind in plain.REPVGG)
_DENSE = tuple(f"cifar/{name}" for name in dense.BLOCKS if "bc" not in name)
_DENSE_BC = tuple(f"cifar/{name}" for name in dense.BLOCKS if "bc" in name)
_SHUFFLE = tuple(name for name in mobile.BUILDERS if "shuffle" in name)

PUBLISHED = (
    Published("akamaster/pytorch_resnet_cifar10", _THREE, pixels={10: _IMAGENET}),
    Published("kuangliu/pytorch-cifar", (*_FOUR, *_PREACT, *_VGG), pixels={10: _KUANGLIU}),
    Published("kuangliu/pytorch-cifar", ("cifar/mobilenetv2",), {"shortcut": "conv"}, pixels={10: _KUANGLIU}),
    Published("kuangliu/pytorch-cifar", _DENSE, {"newest_first": True}, pixels={10: _KUANGLIU}),
    Published("chenyaofo/pytorch-cifar-models", _THREE, {"shortcut": "conv"}, naming.TORCHVISION),
    Published("chenyaofo/pytorch-cifar-models", (*_SHUFFLE, "cifar/mobilenetv2")),
    Published("chenyaofo/pytorch-cifar-models", _VGG, {"hidden": 512}),
    Published("chenyaofo/pytorch-cifar-models", _REPVGG, {}, naming.REPVGG_NAMES),
    Published("chenyaofo/pytorch-cifar-models", _REPVGG, {"fused": True}, naming.FUSED),
    Published("weiaicunzai/pytorch-cifar100", _FOUR, {}, naming.WEIAICUNZAI, {100: _CIFAR100}),
    Published(
        "weiaicunzai/pytorch-cifar100", _PREACT,
        {"bias": True, "stem_norm": True, "shortcut_of": "input", "stride_in": "conv1"},
        naming.WEIAICUNZAI_PREACT, {100: _CIFAR100},
    ),
    Published(
        "weiaicunzai/pytorch-cifar100", _WIDE, {"bias": True, "shortcut_of": "input"}, naming.WEIAICUNZAI_WIDE,
        {100: _CIFAR100},
    ),
    Published(
        "weiaicunzai/pytorch-cifar100", _DENSE, {"transition_relu": False}, naming.WEIAICUNZAI_DENSE,
        {100: _CIFAR100},
    ),
    Published(
        "meliketoy/wide-resnet.pytorch", _WIDE, {"bias": True, "shortcut_of": "input", "stride_in": "conv2"},
        pixels={10: _KUANGLIU, 100: ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))},
    ),
    Published("xternalz/WideResNet-pytorch", _WIDE, {}, naming.XTERNALZ, {10: _BYTES, 100: _BYTES}),
    Published("andreasveit/densenet-pytorch", _DENSE_BC, {}, naming.ANDREASVEIT, {10: _BYTES, 100: _BYTES}),
    Published(
        "bamos/densenet.pytorch", _DENSE_BC, {}, naming.BAMOS,
        {10: ((0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768))},
    ),
    Published("weiaicunzai/pytorch-cifar100", _VGG, {"hidden": 4096}, pixels={100: _CIFAR100}),
    Published("huyvnphan/PyTorch_CIFAR10", _VGG, {"hidden": 4096}, pixels={10: _COMMON}),
    Published("huyvnphan/PyTorch_CIFAR10", _FOUR, {"stem_pool": True}, naming.TORCHVISION, {10: _COMMON}),
    Published("torchvision's names, 3x3 first layer, no pooling behind it", _FOUR, {}, naming.TORCHVISION),
)  # fmt: skip


def silent(architecture: str, options: Mapping[str, object]) -> list[str]:
    """Other values of options that leave all tensors as they are and change the logits.

    Returns:
        Each as `option=value`.
    """
    values: dict[str, tuple[object, tuple[object, ...]]] = {}
    if architecture in _THREE and options.get("shortcut") != "conv":
        values["shortcut"] = options.get("shortcut", "pad-both"), ("pad-both", "pad-end", "pool")
    if architecture in _FOUR:
        values["stem_pool"] = options.get("stem_pool", False), (False, True)
    if architecture in (*_PREACT, *_WIDE):
        values["shortcut_of"] = options.get("shortcut_of", "activated"), ("activated", "input")
        if architecture in _WIDE or architecture in _PREACT[2:]:
            first = "conv1" if architecture in _WIDE else "conv2"
            values["stride_in"] = options.get("stride_in", first), ("conv1", "conv2")
    if architecture in (*_DENSE, *_DENSE_BC):
        values["newest_first"] = options.get("newest_first", False), (False, True)
        values["transition_relu"] = options.get("transition_relu", True), (True, False)
    return [
        f"{name}={str(other).lower() if isinstance(other, bool) else other}"
        for name, (value, others) in values.items()
        for other in others
        if other != value
    ]
