"""Image classifiers that transformers saved: ResNet and ViT, as the equal networks of torchvision.

References:
    The configuration and names of tensors of `ResNetForImageClassification` and `ViTForImageClassification`. No code
    is taken from transformers.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from app.imports.sources import SourceError
from app.sources.fit import fitted_tensors
from app.sources.found import Found
from app.sources.hub import Repository
from pnc_core.config import NetworkSpec
from pnc_core.networks.checkpoint import read_checkpoint
from pnc_core.preprocessing import Preprocessing

_RESNETS = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
_VITS = {
    (768, 12, 12, 3072, 16): "vit_b_16",
    (768, 12, 12, 3072, 32): "vit_b_32",
    (1024, 24, 16, 4096, 16): "vit_l_16",
    (1024, 24, 16, 4096, 32): "vit_l_32",
    (1280, 32, 16, 5120, 14): "vit_h_14",
}
_RESNET_NAMES = (
    (r"^resnet\.embedder\.embedder\.convolution", "conv1"),
    (r"^resnet\.embedder\.embedder\.normalization", "bn1"),
    (r"^resnet\.encoder\.stages\.(\d+)\.layers\.", lambda m: f"layer{int(m[1]) + 1}."),
    (r"shortcut\.convolution", "downsample.0"),
    (r"shortcut\.normalization", "downsample.1"),
    (r"layer\.(\d+)\.convolution", lambda m: f"conv{int(m[1]) + 1}"),
    (r"layer\.(\d+)\.normalization", lambda m: f"bn{int(m[1]) + 1}"),
    (r"^classifier\.1", "fc"),
)
_VIT_NAMES = (
    (r"^vit\.embeddings\.cls_token", "class_token"),
    (r"^vit\.embeddings\.position_embeddings", "encoder.pos_embedding"),
    (r"^vit\.embeddings\.patch_embeddings\.projection", "conv_proj"),
    (r"^vit\.encoder\.layer\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    (r"^vit\.layers\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    (r"attention\.(output\.dense|o_proj)", "self_attention.out_proj"),
    (r"mlp\.fc1", "mlp.0"),
    (r"mlp\.fc2", "mlp.3"),
    (r"intermediate\.dense", "mlp.0"),
    (r"output\.dense", "mlp.3"),
    (r"layernorm_before", "ln_1"),
    (r"layernorm_after", "ln_2"),
    (r"^vit\.layernorm", "encoder.ln"),
    (r"^classifier", "heads.head"),
)
_SUPPORTED = {"ResNetForImageClassification": _RESNET_NAMES, "ViTForImageClassification": _VIT_NAMES}
_QUERY = re.compile(r"attention\.(?:attention\.query|q_proj)\.(weight|bias)\Z")
_KEY_OR_VALUE = re.compile(r"attention\.(attention\.(key|value)|[kv]_proj)\.")
VIT_EPSILON = 1e-6
"""Epsilon of torchvision's layer norms. transformers' default, 1e-12, gives the same logits up to rounding."""


def find(repository: Repository, stored: Mapping[str, Any], folder: Path) -> Found:
    """A network of a repository whose `config.json` has the form of transformers.

    Args:
        repository: The repository.
        stored: Its `config.json`.
        folder: Receives the converted file.

    Raises:
        SourceError: its architecture, options or preprocessing are not supported.
    """
    kind = next(iter(stored.get("architectures") or ("none",)))
    name = _architecture(kind, stored)
    if name is None:
        raise SourceError(
            f"{repository}: expected {' or '.join(_SUPPORTED)} of a published size, or a network of timm, got {kind} "
            "with these options; push its weights with `pnc models push`"
        )
    labels = {int(number): str(label) for number, label in (stored.get("id2label") or {}).items()}
    processor = repository.file("preprocessor_config.json")
    spec = NetworkSpec(
        architecture=f"torchvision/{name}",
        classes=distinct([labels[number] for number in sorted(labels)]),
        **preprocessing(repository.read_json(processor), str(repository)),
    )
    path = repository.weights()
    found = read_checkpoint(path)
    tensors = renamed(found.tensors, kind)
    file = fitted_tensors(tensors, spec, folder / "model.safetensors", ordered=False)
    return Found(file, repository.origin(path), spec)


def distinct(names: list[str]) -> tuple[str, ...]:
    """Class names of which none occurs twice: equal names get their number."""
    return tuple(name if names.count(name) == 1 else f"{name} #{number}" for number, name in enumerate(names))


def _architecture(kind: str, config: Mapping[str, Any]) -> str | None:
    """Name of the equal classifier of torchvision; none: there is none."""
    if kind == "ResNetForImageClassification":
        layer = config.get("layer_type", "bottleneck")
        widths = [64, 128, 256, 512] if layer == "basic" else [256, 512, 1024, 2048]
        plain = (
            config.get("hidden_sizes", [256, 512, 1024, 2048]) == widths
            and config.get("embedding_size", 64) == 64
            and config.get("hidden_act", "relu") == "relu"
            and not config.get("downsample_in_first_stage")
            and not config.get("downsample_in_bottleneck")
            and config.get("num_channels", 3) == 3
        )
        return _RESNETS.get((layer, tuple(config.get("depths", (3, 4, 6, 3))))) if plain else None
    if kind == "ViTForImageClassification":
        sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
        key = (*(config.get(name, default) for name, default in sizes.items()), config.get("patch_size", 16))
        plain = config.get("hidden_act", "gelu") == "gelu" and config.get("qkv_bias", True)
        fine = float(config.get("layer_norm_eps", 1e-12)) <= VIT_EPSILON
        return _VITS.get(key) if plain and fine else None
    return None


def renamed(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Tensors under the names of torchvision; query, key and value of an attention become one tensor."""
    found = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in _SUPPORTED[kind]:
            new = re.sub(pattern, replacement, new)
        if query := _QUERY.search(new):
            one, *others = ("query", "key", "value") if ".query." in name else ("q_proj", "k_proj", "v_proj")
            parts = [tensor, *(tensors[name.replace(f".{one}.", f".{part}.")] for part in others)]
            found[f"{new[: query.start()]}self_attention.in_proj_{query[1]}"] = torch.cat(parts)
        elif not _KEY_OR_VALUE.search(new):
            found[new] = tensor
    return found


def preprocessing(stored: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Fields of a `NetworkSpec` that preprocess images as an image processor of transformers does.

    Args:
        stored: The `preprocessor_config.json`.
        owner: The repository, for messages.

    Raises:
        SourceError: the processor has steps that a specification cannot describe.
    """
    kind = str(stored.get("image_processor_type") or stored.get("feature_extractor_type") or "")
    size, crop = _size(stored.get("size", 224)), _size(stored.get("crop_size"))
    scaled = stored.get("do_rescale", True) and abs(float(stored.get("rescale_factor", 1 / 255)) * 255 - 1) < 1e-6
    if not stored.get("do_resize", True) or not scaled or not size:
        raise SourceError(f"{owner}: expected an image processor that resizes and scales to 0..1, got {kind or 'none'}")
    rule: dict[str, Any]
    if kind.startswith("ConvNext"):
        short = size.get("shortest_edge", 224)
        share = float(stored.get("crop_pct") or 224 / 256)
        sides = (short, short)
        rule = {"resize": "shorter-side", "resize_size": int(short / share)} if short < 384 else {}
    elif "shortest_edge" in size:
        if not stored.get("do_center_crop") or not crop:
            raise SourceError(
                f"{owner}: expected a centre crop after the resize, got none; the input has no fixed size"
            )
        sides = (crop.get("height", 0), crop.get("width", 0))
        rule = {"resize": "shorter-side", "resize_size": size["shortest_edge"]}
    else:
        sides, rule = (size["height"], size["width"]), {}
    normal = stored.get("do_normalize", True)
    resample: Any = Image.Resampling(int(stored.get("resample", 2))).name.lower()
    return {
        "input_size": (3, *sides),
        "mean": tuple(stored["image_mean"]) if normal else (0.0,) * 3,
        "std": tuple(stored["image_std"]) if normal else (1.0,) * 3,
        "preprocessing": Preprocessing(interpolation=resample, **rule),
    }


def _size(value: Any) -> dict[str, int]:
    if isinstance(value, int):
        return {"height": value, "width": value}
    return {name: int(side) for name, side in value.items()} if isinstance(value, Mapping) else {}
