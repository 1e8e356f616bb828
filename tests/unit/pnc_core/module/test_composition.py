import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pnc_core.errors import CompositionError
from pnc_core.identity import fingerprint
from pnc_core.module.bundle import Bundle, digest
from pnc_core.module.composition import (
    FORMAT,
    METADATA_KEY,
    ComposedModule,
    Composition,
    CompositionManifest,
    RidgeSpec,
    module_digest,
    read_composition,
)
from tests.unit.pnc_core.conftest import Pair

RIDGE = RidgeSpec(taps=1, features=2, prior=1.0, weight=0.0, images=50)


@pytest.fixture
def made(pair: Pair, by_hand: dict[str, Bundle]) -> Composition:
    bundle = by_hand["router"]
    one = ComposedModule(
        digest=module_digest(bundle),
        classes=bundle.manifest.classes,
        source_fingerprint=bundle.manifest.source_fingerprint,
    )
    manifest = CompositionManifest(
        format=FORMAT, target=pair.target[1], target_fingerprint=fingerprint(pair.target[0]), modules=(one,),
        head="affine", origin="fitted", ridge=None, without_ridge="few images", verdict=None, created_by="test",
    )  # fmt: skip
    return Composition(manifest, {"balance": torch.tensor([[2.0, 1.0]], dtype=torch.float64)})


def test_it_is_read_as_it_was_written(made: Composition, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    assert made.write(path) == digest(path.read_bytes())
    again = read_composition(path)
    assert again.manifest == made.manifest
    assert again.balance_of(made.digests[0]) == (2.0, 1.0)
    assert again.to_bytes() == made.to_bytes()


def test_thin_and_full_bundle_are_one_module(by_hand: dict[str, Bundle]) -> None:
    assert module_digest(by_hand["router"]) == module_digest(by_hand["router"].thin())
    assert len({module_digest(bundle) for bundle in by_hand.values()}) == len(by_hand)


@pytest.mark.parametrize("cut", [0, 7, 40, -1])
def test_a_truncated_file_is_refused(made: Composition, tmp_path: Path, cut: int) -> None:
    (tmp_path / "cut").write_bytes(made.to_bytes()[:cut])
    with pytest.raises(CompositionError):
        read_composition(tmp_path / "cut")


def test_a_bundle_is_not_a_composition(by_hand: dict[str, Bundle], tmp_path: Path) -> None:
    by_hand["affine"].write(tmp_path / "bundle")
    with pytest.raises(CompositionError, match="metadata key"):
        read_composition(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pnc-composition/9"}, "matching version"),
        ({"extra": 1}, "expected only"),
        ({"head": "router"}, "head"),
        ({"modules": []}, "at least one"),
        ({"origin": None}, "origin"),
    ],
)
def test_a_wrong_manifest_is_refused(
    made: Composition, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    text = json.dumps({**made.manifest.to_dict(), **change}, sort_keys=True, separators=(",", ":"))
    (tmp_path / "wrong").write_bytes(safetensors.torch.save(made.tensors, {METADATA_KEY: text}))
    with pytest.raises(CompositionError, match=message):
        read_composition(tmp_path / "wrong")


def test_a_manifest_in_another_form_is_refused(made: Composition, tmp_path: Path) -> None:
    text = json.dumps(made.manifest.to_dict(), indent=1)
    (tmp_path / "wrong").write_bytes(safetensors.torch.save(made.tensors, {METADATA_KEY: text}))
    with pytest.raises(CompositionError, match="canonical"):
        read_composition(tmp_path / "wrong")


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"balance": torch.zeros(1, 2)},
        {"balance": torch.zeros(2, 2).double()},
        {"balance": torch.full((1, 2), torch.inf).double()},
        {"balance": torch.zeros(1, 2).double(), "head.weight": torch.zeros(6, 4)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(made: Composition, tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CompositionError, match="expected"):
        Composition(made.manifest, tensors)


def test_sums_have_the_shapes_of_their_manifest(made: Composition) -> None:
    manifest = replace(made.manifest, ridge=RIDGE, without_ridge="")
    sums = {"mean": (2,), "spread": (2,), "gram": (6,), "cross": (3, 6)}
    tensors = made.tensors | {f"ridge.{name}": torch.ones(shape).double() for name, shape in sums.items()}
    assert Composition(manifest, tensors).manifest.ridge == RIDGE
    with pytest.raises(CompositionError, match=r"ridge\.gram"):
        Composition(manifest, {**tensors, "ridge.gram": torch.ones(5).double()})


def test_a_module_that_it_lacks_has_no_numbers(made: Composition) -> None:
    with pytest.raises(CompositionError, match="expected one of the modules"):
        made.balance_of("sha256:" + "0" * 64)
