"""Bare files of weights, exported folders, and the way back."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import safetensors.torch
import torch

from app.imports.sources import SourceError, parse
from app.sources import exporting
from app.sources.found import Rules, digest_of
from app.sources.from_mlflow import weights_in
from app.sources.resolving import found_at
from pnc_client.schemas.models import Origin, Version
from pnc_core.config import NetworkSpec
from pnc_core.errors import WeightsMismatch
from pnc_core.graph.architectures import build_network, load_network
from pnc_core.preprocessing import Preprocessing
from pnc_core.vision import timm_package

OWN = Rules(own_machine=True)
SMALL = NetworkSpec(architecture="cnn", classes=("a", "b"), input_size=(1, 8, 8), mean=(0.0,), std=(1.0,))
TIMM = NetworkSpec(
    architecture="timm/mobilenetv3_small_050", classes=("cat", "dog", "newt"), input_size=(3, 160, 160),
    mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), class_aliases={"cat": ("house cat", "Felis catus")},
    preprocessing=Preprocessing(resize="shorter-side", resize_size=177, interpolation="bicubic"),
)  # fmt: skip


def exported(spec: NetworkSpec, folder: Path) -> Version:
    """A version with fresh weights, exported to a folder as the command does."""
    torch.manual_seed(0)
    exporting.check_empty(folder)
    folder.mkdir()
    safetensors.torch.save_file(build_network(spec).state_dict(), folder / exporting.WEIGHTS)
    digest = digest_of(folder / exporting.WEIGHTS)
    origin = Origin(source="timm/x", revision="r", digest="0" * 64)
    version = Version(
        id="ver_1", ref="digits@3", number=3, status="ready", spec=spec, licence="MIT", origin=origin, digest=digest,
        bytes=1, fingerprint=None, parameters=None, macs=None, accuracy=0.5, accuracy_images=10,
        accuracy_dataset="ds_1", problem=None, created_at=datetime.now(UTC), archived_at=None,
    )  # fmt: skip
    exporting.describe(version, "---\nlicense: mit\n---\n# Digits\nSmall.", folder)
    return version


@pytest.mark.parametrize("spec", [SMALL, TIMM], ids=["cnn", "timm"])
def test_an_exported_folder_is_imported_with_the_same_digest(spec: NetworkSpec, tmp_path: Path) -> None:
    version = exported(spec, tmp_path / "out")
    with found_at(parse(str(tmp_path / "out"), files=True), Rules()) as found:
        assert found.spec == spec
        assert found.spec is not None
        assert found.spec.class_aliases == spec.class_aliases
        assert digest_of(found.weights) == found.origin.digest == version.digest
        assert found.licence == "mit"


def test_timm_itself_loads_an_exported_network(tmp_path: Path) -> None:
    exported(TIMM, tmp_path / "out")
    timm = timm_package()
    assert timm is not None
    network = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    x = torch.rand(2, *TIMM.input_size)
    assert torch.equal(network(x), load_network(TIMM, tmp_path / "out" / exporting.WEIGHTS)(x))
    config = timm.data.resolve_data_config(pretrained_cfg=network.pretrained_cfg)
    transform = timm.data.create_transform(**config)
    assert (transform.transforms[0].size, config["interpolation"]) == (177, "bicubic")
    assert (tuple(config["mean"]), tuple(config["std"])) == (TIMM.mean, TIMM.std)
    assert network.pretrained_cfg["label_names"] == list(TIMM.classes)


@pytest.mark.parametrize("size", range(224, 330, 3))
def test_a_share_of_timm_gives_back_every_size_before_the_crop(size: int) -> None:
    rule = Preprocessing(resize="shorter-side", resize_size=size)
    spec = NetworkSpec(
        architecture="timm/resnet18", classes=("a", "b"), input_size=(3, 224, 224), mean=(0,) * 3, std=(1,) * 3,
        preprocessing=rule,
    )  # fmt: skip
    share = exporting.config_of(spec)["pretrained_cfg"]["crop_pct"]
    assert int(224 / share) == size


def test_the_card_has_yaml_the_model_s_text_and_the_origin(tmp_path: Path) -> None:
    exported(TIMM, tmp_path / "out")
    card = (tmp_path / "out" / exporting.CARD).read_text()
    assert card.startswith('---\nlicense: "mit"\nlibrary_name: "timm"\n')
    assert card.count("---\n") == 2
    for text in ("# Digits\nSmall.", "| imported from | timm/x r |", "50.0% of 10 images", "digits@3"):
        assert text in card
    with pytest.raises(SourceError, match="new or empty folder"):
        exporting.check_empty(tmp_path / "out")


def test_a_bare_file_is_compared_with_the_given_network(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(build_network(SMALL).state_dict(), file)
    source = parse(str(file), files=True)
    with found_at(source, OWN) as bare:
        assert (bare.spec, bare.weights, bare.origin.source) == (None, file, "weights.safetensors")
    with found_at(source, Rules(), SMALL) as found:
        assert found.weights == file
    torch.save({"state_dict": build_network(SMALL).state_dict()}, tmp_path / "weights.pth")
    with found_at(parse(str(tmp_path / "weights.pth"), files=True), OWN, SMALL) as found:
        load_network(SMALL, found.weights)
    bare_pickle = found_at(parse(str(tmp_path / "weights.pth"), files=True), Rules(), SMALL)
    with pytest.raises(SourceError, match=r"expected safetensors, got a file of torch\.save"), bare_pickle:
        pass
    three = NetworkSpec(**{**SMALL.to_dict(), "classes": ("a", "b", "c")})
    with pytest.raises(WeightsMismatch, match="cnn with 3 classes"), found_at(source, Rules(), three):
        pass
    with pytest.raises(SourceError, match="expected an existing file"), found_at(parse("none.th", files=True), Rules()):
        pass


def test_one_file_of_weights_is_taken_from_artifacts_of_mlflow(tmp_path: Path) -> None:
    """As `mlflow.pytorch.log_state_dict` and `log_model` lay them out."""
    with pytest.raises(SourceError, match="log_state_dict"):
        weights_in(tmp_path, "mlflow://models/a/1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model.pth").write_bytes(b"1")
    (tmp_path / "MLmodel").write_text("flavors: {}")
    assert weights_in(tmp_path, "mlflow://models/a/1").name == "model.pth"
    (tmp_path / "a.safetensors").write_bytes(b"1")
    assert weights_in(tmp_path, "mlflow://models/a/1").name == "a.safetensors"
    (tmp_path / "b.safetensors").write_bytes(b"1")
    with pytest.raises(SourceError, match=r"one file of weights, got a\.safetensors, b\.safetensors"):
        weights_in(tmp_path, "mlflow://models/a/1")
