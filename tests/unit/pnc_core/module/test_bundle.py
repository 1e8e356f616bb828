import hashlib
import json
import random
from pathlib import Path

import pytest
import safetensors
import torch

from pnc_core.errors import BundleError
from pnc_core.module.bundle import Bundle, digest, read_bundle
from pnc_core.module.manifest import Manifest


@pytest.fixture
def file(by_hand: dict[str, Bundle], tmp_path: Path) -> Path:
    path = tmp_path / "module.safetensors"
    by_hand["router"].write(path)
    return path


@pytest.mark.parametrize("kind", ["affine", "router", "joint"])
@pytest.mark.parametrize("payload", ["thin", "full"])
def test_write_read_write_gives_the_same_bytes(
    by_hand: dict[str, Bundle], tmp_path: Path, kind: str, payload: str
) -> None:
    path = tmp_path / "module.safetensors"
    bundle = by_hand[kind].payload(payload)
    written = bundle.write(path)
    again = read_bundle(path)
    assert again.manifest == bundle.manifest
    assert again.to_bytes() == path.read_bytes() == bundle.to_bytes()
    assert written == digest(path.read_bytes()) == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_order_of_the_tensors_does_not_matter(by_hand: dict[str, Bundle]) -> None:
    bundle = by_hand["router"]
    assert Bundle(bundle.manifest, dict(reversed(bundle.tensors.items()))).to_bytes() == bundle.to_bytes()


def test_plain_safetensors_shows_tensors_and_manifest(by_hand: dict[str, Bundle], file: Path) -> None:
    with safetensors.safe_open(file, "pt") as opened:
        assert set(opened.keys()) == set(by_hand["router"].tensors)
        assert list(opened.metadata()) == ["pnc"]
        assert Manifest.from_json(opened.metadata()["pnc"]) == by_hand["router"].manifest
        for name, tensor in by_hand["router"].tensors.items():
            assert torch.equal(opened.get_tensor(name), tensor)


def test_thin_leaves_exactly_the_source_s_slices_out(by_hand: dict[str, Bundle]) -> None:
    full = by_hand["router"]
    thin = full.thin()
    assert thin.manifest.payload == "thin"
    assert full.manifest.payload == "full"
    assert set(full.tensors) - set(thin.tensors) == {n for n in full.tensors if n.startswith("module.")} != set()
    assert len(thin.to_bytes()) < len(full.to_bytes())
    assert thin.thin().to_bytes() == thin.to_bytes()


def test_a_thin_bundle_cannot_become_full(by_hand: dict[str, Bundle]) -> None:
    with pytest.raises(BundleError, match="expected a full bundle, got a thin one"):
        by_hand["router"].thin().payload("full")


@pytest.mark.parametrize("share", [0, 0.0005, 0.01, 0.5, 0.9999])
def test_a_truncated_file_is_refused(file: Path, share: float) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(BundleError):
        read_bundle(file)


def test_a_damaged_byte_in_the_manifest_is_refused(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[raw.index(b"target_fingerprint")] ^= 0x80
    file.write_bytes(raw)
    with pytest.raises(BundleError):
        read_bundle(file)


def test_a_flipped_bit_of_the_header_never_raises_anything_but_a_bundle_error(file: Path) -> None:
    raw, draw = file.read_bytes(), random.Random(0)
    length = 8 + int.from_bytes(raw[:8], "little")
    refused = 0
    for _ in range(200):
        flipped = bytearray(raw)
        flipped[draw.randrange(length)] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        try:
            read_bundle(file)
        except BundleError:
            refused += 1
    assert refused > 50


def test_a_file_without_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(1)}, {"format": "pt"}))
    with pytest.raises(BundleError, match=r"metadata key 'pnc' and no other, got \['format'\]"):
        read_bundle(path)


def test_a_manifest_of_another_format_is_refused(by_hand: dict[str, Bundle], tmp_path: Path) -> None:
    value = json.loads(by_hand["affine"].manifest.to_json()) | {"format": "pnc-bundle/9"}
    path = tmp_path / "module.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(1)}, {"pnc": json.dumps(value)}))
    with pytest.raises(BundleError, match="pnc-bundle/9"):
        read_bundle(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_number_that_is_not_finite_is_refused_by_name(
    by_hand: dict[str, Bundle], tmp_path: Path, value: float
) -> None:
    tensors = {**by_hand["router"].tensors, "adapter.bias": by_hand["router"].tensors["adapter.bias"].clone()}
    tensors["adapter.bias"][1] = value
    path, odd = tmp_path / "module.safetensors", Bundle(by_hand["router"].manifest, tensors)
    with pytest.raises(BundleError, match=r"'adapter\.bias'"):
        odd.write(path)
    assert not path.exists()
    path.write_bytes(safetensors.torch.save(dict(tensors), {"pnc": odd.manifest.to_json()}))
    with pytest.raises(BundleError, match=r"'adapter\.bias'"):
        read_bundle(path)
