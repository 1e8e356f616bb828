"""Repositories of the Hugging Face Hub, read from a cache without network."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from app.imports.sources import SourceError
from app.sources.found import digest_of
from pnc_core.graph.architectures import build_network, load_network
from pnc_core.vision import timm_package
from tests.unit.sources.hubs import COMMIT, Importing, fill, go_offline

TIMM = timm_package()
LABELS = ["cat", "dog", "newt"]


@pytest.fixture
def importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Importing:
    go_offline(monkeypatch)
    return Importing(tmp_path / "cache")


def _timm_repository(**changes: object) -> tuple[torch.nn.Module, dict[str, bytes | dict[str, object]]]:
    """Files as timm writes them for a network with three classes."""
    torch.manual_seed(0)
    network = TIMM.create_model("mobilenetv3_small_050", num_classes=3).eval()
    config = {
        "architecture": "mobilenetv3_small_050",
        "num_classes": 3,
        "label_names": LABELS,
        "label_descriptions": {"cat": "house cat, Felis catus"},
        "pretrained_cfg": {
            "input_size": [3, 160, 160],
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.3, 0.4],
            "crop_pct": 0.9,
            "interpolation": "bilinear",
            "crop_mode": "center",
            "license": "mit",
        },
        **changes,
    }
    return network, {"config.json": config, "model.safetensors": safetensors.torch.save(network.state_dict())}


def test_a_network_of_timm_has_its_classes_preprocessing_and_commit(importing: Importing) -> None:
    network, files = _timm_repository()
    fill(importing.cache, "owner/name", files)
    found = importing("hf://owner/name")
    assert found.spec is not None
    assert (found.spec.architecture, found.spec.classes) == ("timm/mobilenetv3_small_050", tuple(LABELS))
    assert found.spec.class_aliases == {"cat": ("house cat", "Felis catus")}
    assert (found.spec.input_size, found.spec.mean, found.spec.std) == (
        (3, 160, 160), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4),
    )  # fmt: skip
    rule = found.spec.preprocessing
    assert (rule.resize, rule.resize_size, rule.interpolation) == ("shorter-side", 177, "bilinear")
    assert (found.origin.source, found.origin.revision, found.licence) == ("hf://owner/name", COMMIT, "mit")
    assert found.origin.url == f"https://huggingface.co/owner/name/resolve/{COMMIT}/model.safetensors"
    assert digest_of(found.weights) == found.origin.digest
    x = torch.rand(2, 3, 160, 160)
    assert torch.equal(load_network(found.spec, found.weights)(x), network(x))


def test_a_file_of_torch_save_is_taken_where_there_is_no_safetensors(importing: Importing, tmp_path: Path) -> None:
    network, files = _timm_repository()
    torch.save(network.state_dict(), tmp_path / "bin")
    del files["model.safetensors"]
    fill(importing.cache, "owner/name", {**files, "pytorch_model.bin": (tmp_path / "bin").read_bytes()})
    with pytest.raises(SourceError, match=r"expected model.safetensors from .* or in the cache"):
        importing("hf://owner/name")  # a worker of the service does not read it
    importing.own_machine = True
    found = importing("hf://owner/name")
    assert found.spec is not None
    assert found.origin.file == "pytorch_model.bin"
    x = torch.rand(2, 3, 160, 160)
    assert torch.equal(load_network(found.spec, found.weights)(x), network(x))


def test_a_network_with_own_arguments_is_refused(importing: Importing) -> None:
    _, files = _timm_repository(model_args={"act_layer": "relu"})
    fill(importing.cache, "owner/name", files)
    with pytest.raises(SourceError, match="without own arguments, got act_layer"):
        importing("hf://owner/name")


def test_published_weights_of_timm_come_from_the_hub_with_the_names_of_imagenet(importing: Importing) -> None:
    torch.manual_seed(0)
    network = TIMM.create_model("mobilenetv3_small_050").eval()
    files = {"model.safetensors": safetensors.torch.save(network.state_dict())}
    fill(importing.cache, "timm/mobilenetv3_small_050.lamb_in1k", files)
    found = importing("timm/mobilenetv3_small_050")
    assert found.spec is not None
    assert found.spec.classes[:2] == ("n01440764", "n01443537")
    assert found.spec.class_aliases["n01443537"] == ("goldfish", "Carassius auratus")
    assert (found.origin.source, found.origin.revision) == ("timm/mobilenetv3_small_050.lamb_in1k", COMMIT)
    x = torch.rand(2, 3, 224, 224)
    assert torch.equal(load_network(found.spec, found.weights)(x), network(x))
    with pytest.raises(SourceError, match="lamb_in1k"):
        importing("timm/mobilenetv3_small_050.in22k")
    with pytest.raises(SourceError, match="did you mean"):
        importing("timm/mobilenetv3_smal_050")


def test_what_is_not_in_the_cache_is_one_line(importing: Importing) -> None:
    with pytest.raises(SourceError, match=r"hf://owner/none: expected config.json from .* or in the cache") as caught:
        importing("hf://owner/none")
    assert "\n" not in str(caught.value)


def test_other_repositories_are_refused_with_the_forms_that_are_known(importing: Importing) -> None:
    fill(importing.cache, "owner/text", {"config.json": {"architectures": ["BertModel"]}})
    with pytest.raises(SourceError, match="expected ResNetForImageClassification or ViTForImageClassification"):
        importing("hf://owner/text")
    fill(importing.cache, "owner/other", {"config.json": {"x": 1}})
    with pytest.raises(SourceError, match=r"expected config.json of timm"):
        importing("hf://owner/other")


def test_an_exported_network_keeps_its_bytes(importing: Importing) -> None:
    from pnc_core.config import NetworkSpec

    spec = NetworkSpec(
        architecture="cifar/resnet20", classes=tuple("ab"), input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3,
        options={"width": 4},
    )  # fmt: skip
    data = safetensors.torch.save(build_network(spec).state_dict())
    card = b"---\nlicense: apache-2.0\n---\n# Card\n"
    config = {"pnc": {"spec": spec.to_dict()}}
    fill(importing.cache, "owner/own", {"config.json": config, "model.safetensors": data, "README.md": card})
    found = importing("hf://owner/own@main")
    assert found.spec == spec
    assert found.weights.read_bytes() == data
    assert (found.origin.source, found.licence) == ("hf://owner/own@main", "apache-2.0")
