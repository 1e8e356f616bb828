"""Image classifiers in the form of transformers."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from app.imports.sources import SourceError
from app.sources.from_transformers import distinct, preprocessing, renamed
from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import load_network
from pnc_core.vision import torchvision_models
from tests.unit.sources.hubs import Importing, fill, go_offline

MODELS = torchvision_models()
CONFIG = {
    "architectures": ["ResNetForImageClassification"],
    "layer_type": "basic",
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [64, 128, 256, 512],
    "embedding_size": 64,
    "id2label": {"1": "dog", "0": "cat", "2": "newt"},
}
PROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "size": {"shortest_edge": 224},
    "crop_pct": 0.875,
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


@pytest.fixture
def importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Importing:
    go_offline(monkeypatch)
    return Importing(tmp_path / "cache")


def _resnet18() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A classifier of torchvision, and its tensors as transformers names them."""
    torch.manual_seed(0)
    network = MODELS.get_model("resnet18", weights=None, num_classes=3).eval()
    theirs = {}
    for name, tensor in network.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        if layer in ("conv1", "bn1"):
            new = f"resnet.embedder.embedder.{'convolution' if layer == 'conv1' else 'normalization'}"
        elif layer == "fc":
            new = "classifier.1"
        else:
            stage, block, part, *rest = layer.split(".")
            inner = {"conv1": "layer.0.convolution", "bn1": "layer.0.normalization"}
            inner |= {"conv2": "layer.1.convolution", "bn2": "layer.1.normalization"}
            inner |= {"downsample": f"shortcut.{'convolution' if rest == ['0'] else 'normalization'}"}
            new = f"resnet.encoder.stages.{int(stage[-1]) - 1}.layers.{block}.{inner[part]}"
        theirs[f"{new}.{leaf}"] = tensor
    return network, theirs


def test_a_resnet_of_transformers_is_torchvision_s(importing: Importing) -> None:
    network, tensors = _resnet18()
    files = {"config.json": CONFIG, "preprocessor_config.json": PROCESSOR}
    fill(importing.cache, "owner/resnet", {**files, "model.safetensors": safetensors.torch.save(tensors)})
    found = importing("hf://owner/resnet")
    assert found.spec is not None
    assert (found.spec.architecture, found.spec.classes) == ("torchvision/resnet18", ("cat", "dog", "newt"))
    assert found.spec.preprocessing.describe(found.spec.input_size).startswith(
        "shorter side to 256, crop 224 x 224, bic"
    )
    x = torch.rand(2, 3, 224, 224)
    assert torch.equal(load_network(found.spec, found.weights)(x), network(x))


@pytest.mark.parametrize(
    "change", [{"depths": [1, 1, 1, 1]}, {"hidden_act": "gelu"}, {"downsample_in_bottleneck": True}]
)
def test_other_options_are_refused(importing: Importing, change: dict[str, object]) -> None:
    fill(importing.cache, "owner/odd", {"config.json": {**CONFIG, **change}})
    with pytest.raises(SourceError, match="published size"):
        importing("hf://owner/odd")


def test_query_key_and_value_of_a_vit_become_one_tensor_in_this_order() -> None:
    own = MODELS.get_model("vit_b_16", weights=None).state_dict().keys()
    attention = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
    layers = (*attention, "attention.output.dense", "intermediate.dense", "output.dense")
    layers += ("layernorm_before", "layernorm_after")
    names = ["vit.embeddings.cls_token", "vit.embeddings.position_embeddings"]
    named = [
        f"vit.encoder.layer.{i}.{part}" for i in range(12) for part in (*layers, "layernorm_before", "layernorm_after")
    ]
    named += ["vit.embeddings.patch_embeddings.projection", "vit.layernorm", "classifier"]
    names += [f"{part}.{leaf}" for part in named for leaf in ("weight", "bias")]
    tensors = {name: torch.tensor([float(number)]) for number, name in enumerate(names)}
    found = renamed(tensors, "ViTForImageClassification")
    assert found.keys() == own
    first = [tensors[f"vit.encoder.layer.0.{part}.bias"].item() for part in attention]
    assert found["encoder.layers.encoder_layer_0.self_attention.in_proj_bias"].tolist() == first


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (PROCESSOR, "shorter side to 256, crop 224 x 224, bicubic, RGB, 0..1"),
        ({**PROCESSOR, "size": {"shortest_edge": 384}}, "squash to 384 x 384, bicubic, RGB, 0..1"),
        ({"image_processor_type": "ViTImageProcessor", "size": 224}, "squash to 224 x 224, bilinear, RGB, 0..1"),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            "shorter side to 256, crop 224 x 224, bilinear, RGB, 0..1",
        ),
    ],
)
def test_preprocessing_of_image_processors(stored: dict[str, object], expected: str) -> None:
    plain = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    fields = preprocessing({**plain, **stored}, "hf://a/b")
    spec = NetworkSpec(architecture="torchvision/resnet18", classes=("a", "b"), **fields)
    assert spec.preprocessing.describe(spec.input_size) == expected


def test_steps_that_cannot_be_described_are_refused() -> None:
    for change in ({"do_resize": False}, {"do_rescale": False}, {"rescale_factor": 1 / 127.5}):
        with pytest.raises(SourceError, match="resizes and scales"):
            preprocessing({**PROCESSOR, **change}, "hf://a/b")
    with pytest.raises(SourceError, match="centre crop"):
        preprocessing({"size": {"shortest_edge": 256}}, "hf://a/b")


def test_equal_labels_get_their_numbers() -> None:
    assert distinct(["crane", "dog", "crane"]) == ("crane #0", "dog", "crane #2")
