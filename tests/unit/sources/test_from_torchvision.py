"""torchvision's classifiers with published weights, from a cache laid out like that of `torch.hub`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from app.imports.sources import SourceError, parse
from app.sources.found import Found, Rules, digest_of
from app.sources.from_torchvision import find, spec_of
from pnc_core.graph.architectures import build_network, load_network
from pnc_core.vision import torchvision_models

MODELS = torchvision_models()
NAMES = MODELS.list_models(module=MODELS)
OFFLINE = Rules(hosts=())


def fill(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> Path:
    """Random weights of a classifier in the cache, under a name with the true beginning of their digest."""
    torch.manual_seed(0)
    network = MODELS.get_model(name, weights=None, init_weights=False, **options) if options else None
    state = (network or MODELS.get_model(name, weights=None)).state_dict()
    for key in [key for key in state if "num_batches" in key]:
        del state[key]  # as in the older of the published files, whose batch norms have version 1
        state._metadata[key.rpartition(".")[0]]["version"] = 1
    cache = folder / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(state, cache / "new")
    file = (cache / "new").rename(cache / f"{name}-{digest_of(cache / 'new')[:8]}.pth")
    weights = MODELS.get_model_weights(name).DEFAULT
    monkeypatch.setattr(weights.value, "url", f"https://download.pytorch.org/models/{file.name}")
    monkeypatch.setenv("TORCH_HOME", str(folder))
    return file


def imported(text: str, folder: Path, rules: Rules = OFFLINE) -> Found:
    (folder / "new").mkdir(exist_ok=True)
    return find(parse(text), rules, folder / "new")


@pytest.mark.parametrize("name", NAMES)
def test_every_classifier_has_the_published_classes_and_preprocessing(name: str) -> None:
    for weights in MODELS.get_model_weights(name):
        if not weights.meta["categories"]:
            with pytest.raises(SourceError, match="no classes"):
                spec_of(name, weights)
            continue
        spec, preset = spec_of(name, weights), weights.transforms()
        assert spec.classes == tuple(weights.meta["categories"])
        assert spec.input_size == (3, preset.crop_size[0], preset.crop_size[0])
        rule = spec.preprocessing
        assert (rule.resize, rule.resize_size) == ("shorter-side", preset.resize_size[0])
        assert (rule.interpolation, rule.antialias) == (preset.interpolation.value, preset.antialias)
        if name not in ("googlenet", "inception_v3"):
            assert (spec.mean, spec.std) == (tuple(preset.mean), tuple(preset.std))
        parameters = sum(p.numel() for p in build_network(spec, device="meta").parameters())
        assert abs(parameters - weights.meta["num_params"]) <= _auxiliary(name)


def _auxiliary(name: str) -> int:
    """Parameters of the heads that torchvision counts and drops."""
    return {"inception_v3": 3_326_696}.get(name, 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("squeezenet1_1", {}),
        ("shufflenet_v2_x0_5", {}),
        ("mobilenet_v3_small", {}),
        ("mnasnet0_5", {}),
        ("resnet18", {}),
        ("googlenet", {"aux_logits": True}),
    ],
)
def test_the_logits_are_those_of_torchvision(
    name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fill(tmp_path, monkeypatch, name, **options)
    weights = MODELS.get_model_weights(name).DEFAULT
    found = imported(f"torchvision/{name}", tmp_path)
    assert found.spec is not None
    assert found.origin.source == f"torchvision/{name}@{weights.name}"
    assert (found.origin.digest, found.origin.file, found.origin.url) == (digest_of(file), file.name, weights.url)
    pixels = torch.rand(2, *found.spec.input_size)
    preset = weights.transforms()
    with torch.no_grad():
        ours = load_network(found.spec, found.weights)(_scaled(pixels, found.spec.mean, found.spec.std))
        theirs = MODELS.get_model(name, weights=weights).eval()(_scaled(pixels, preset.mean, preset.std))
    if options:  # torchvision scales the pixels a second time, in another order of operations
        torch.testing.assert_close(ours, theirs)
    else:
        assert torch.equal(ours, theirs)


def _scaled(pixels: torch.Tensor, mean: Any, std: Any) -> torch.Tensor:
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def test_older_names_of_tensors_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published files of DenseNet say `norm.1` for `norm1`."""
    torch.manual_seed(0)
    state = MODELS.get_model("densenet121", weights=None).state_dict()
    old = {key.replace("norm1", "norm.1").replace("conv2", "conv.2"): value for key, value in state.items()}
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(old, cache / "densenet121.pth")
    weights = MODELS.get_model_weights("densenet121").DEFAULT
    monkeypatch.setattr(weights.value, "url", "https://download.pytorch.org/models/densenet121.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = imported("torchvision/densenet121", tmp_path)
    assert found.spec is not None
    loaded = load_network(found.spec, found.weights).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_changed_file_in_the_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fill(tmp_path, monkeypatch, "squeezenet1_1")
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(SourceError, match="expected a file whose SHA-256 begins with"):
        imported("torchvision/squeezenet1_1", tmp_path)


def test_without_a_cached_file_and_an_allowed_host_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(SourceError, match="TORCH_HOME") as caught:
        imported("torchvision/squeezenet1_1", tmp_path)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "hub" / "checkpoints").iterdir()) == []


def test_unknown_names_are_answered_with_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="did you mean 'resnet18'"):
        imported("torchvision/resnt18", tmp_path)
    with pytest.raises(SourceError, match="IMAGENET1K_V1"):
        imported("torchvision/resnet18@IMAGENET22K", tmp_path)
