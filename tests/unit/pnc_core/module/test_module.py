import dataclasses

import pytest
import torch

from pnc_core.config import Position
from pnc_core.errors import BundleError, MismatchError, PositionError, UnknownArchitecture
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.module.bundle import Bundle
from pnc_core.module.manifest import Manifest
from pnc_core.module.module import ClonedModule, load_module
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair


def _load(pair: Pair, bundle: Bundle, source: torch.nn.Module | None = None) -> ClonedModule:
    return load_module(bundle, trace(*pair.target), source)


def _changed(bundle: Bundle, name: str, tensor: torch.Tensor | None) -> Bundle:
    tensors = {**bundle.tensors, name: tensor}
    return Bundle(bundle.manifest, {n: t for n, t in tensors.items() if t is not None})


def _told(bundle: Bundle, **changes: object) -> Bundle:
    return Bundle(dataclasses.replace(bundle.manifest, **changes), bundle.tensors)


def test_a_module_is_frozen_in_eval_mode_and_off_the_meta_device(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    module = _load(pair, by_hand["joint"])
    assert not any(m.training for m in module.modules())
    assert not any(p.requires_grad for p in module.parameters())
    assert not any(t.is_meta for t in module.state_dict().values())


@pytest.mark.parametrize("name", ["head.offset", "adapter.weight", "calibration.blocks.2.0.scale", "module.fc.weight"])
def test_a_missing_tensor_is_refused_by_name(pair: Pair, by_hand: dict[str, Bundle], name: str) -> None:
    with pytest.raises(BundleError, match=name):
        _load(pair, _changed(by_hand["router"], name, None))


@pytest.mark.parametrize("name", ["surprise", "module.surprise", "kept.surprise", "head.surprise"])
def test_an_unexpected_tensor_is_refused_by_name(pair: Pair, by_hand: dict[str, Bundle], name: str) -> None:
    with pytest.raises(BundleError, match=name):
        _load(pair, _changed(by_hand["router"], name, torch.ones(1)))


@pytest.mark.parametrize(
    "name", ["head.offset", "head.bias", "adapter.weight", "calibration.blocks.2.0.shift", "module.fc.weight"]
)
@pytest.mark.parametrize("tensor", [torch.ones(7, 7), torch.ones(1, dtype=torch.float64)])
def test_a_tensor_of_another_shape_or_dtype_is_refused(
    pair: Pair, by_hand: dict[str, Bundle], name: str, tensor: torch.Tensor
) -> None:
    with pytest.raises(BundleError, match=rf"'{name}': expected .+, got"):
        _load(pair, _changed(by_hand["router"], name, tensor))


@pytest.mark.parametrize("shape", [(1, 7), (1, 0), ()])
def test_a_head_of_another_width_is_refused(pair: Pair, by_hand: dict[str, Bundle], shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match=r"head\.weight"):
        _load(pair, _changed(by_hand["router"], "head.weight", torch.ones(shape)))


@pytest.mark.parametrize(
    "kept",
    [
        torch.tensor([], dtype=torch.int32),
        torch.tensor([0, 0], dtype=torch.int32),
        torch.tensor([3, 1], dtype=torch.int32),
        torch.tensor([-1, 1], dtype=torch.int32),
        torch.tensor([0, 16], dtype=torch.int32),
        torch.tensor([0, 1]),
        torch.tensor([[0, 1]], dtype=torch.int32),
        torch.tensor(1, dtype=torch.int32),
    ],
)
def test_indices_that_are_not_ascending_channels_are_refused(
    pair: Pair, by_hand: dict[str, Bundle], kept: torch.Tensor
) -> None:
    with pytest.raises(BundleError, match=r"kept\.blocks\.2\.0.*ascending int32 indices below 16"):
        _load(pair, _changed(by_hand["router"], "kept.blocks.2.0", kept))


def test_a_thin_bundle_needs_its_own_source(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    thin = by_hand["router"].thin()
    with pytest.raises(MismatchError, match=r"expected its source network .*, got none"):
        _load(pair, thin)
    with pytest.raises(MismatchError, match="expected the source sha256:"):
        _load(pair, thin, pair.target[0])
    module = _load(pair, thin, pair.source[0])
    full = _load(pair, by_hand["router"])
    assert fingerprint(module) == fingerprint(full)


def test_a_full_bundle_of_an_unknown_architecture_needs_its_own_source(
    pair: Pair, by_hand: dict[str, Bundle], fingerprints: tuple[str, str]
) -> None:
    full = by_hand["router"]
    own = _told(full, source=dataclasses.replace(full.manifest.source, architecture="own", options={}))
    with pytest.raises(UnknownArchitecture, match=rf"got 'own'; or pass the source network {fingerprints[1]} itself"):
        _load(pair, own)
    with pytest.raises(MismatchError, match=r"^full bundle: expected the source sha256:"):
        _load(pair, own, pair.target[0])
    module = _load(pair, own, pair.source[0])
    assert fingerprint(module) == fingerprint(_load(pair, full))
    for tensor in module.state_dict().values():
        tensor.zero_()
    assert fingerprint(pair.source[0]) == fingerprints[1]


def test_a_full_bundle_of_a_known_architecture_does_not_look_at_the_source(
    pair: Pair, by_hand: dict[str, Bundle]
) -> None:
    module = _load(pair, by_hand["router"], pair.target[0])
    assert fingerprint(module) == fingerprint(_load(pair, by_hand["router"]))


def test_the_source_of_a_thin_bundle_is_copied_not_shared(
    pair: Pair, by_hand: dict[str, Bundle], fingerprints: tuple[str, str]
) -> None:
    module = _load(pair, by_hand["router"].thin(), pair.source[0])
    for tensor in module.state_dict().values():
        tensor.zero_()
    assert fingerprint(pair.source[0]) == fingerprints[1]


def test_a_bundle_s_tensors_are_not_shared_with_the_module(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    before = by_hand["router"].to_bytes()
    for tensor in _load(pair, by_hand["router"]).state_dict().values():
        tensor.zero_()
    assert by_hand["router"].to_bytes() == before


@pytest.mark.parametrize("payload", ["thin", "full"])
def test_a_manifest_that_names_classes_the_source_lacks_is_refused(
    pair: Pair, by_hand: dict[str, Bundle], payload: str
) -> None:
    bundle = by_hand["affine"].payload(payload)
    with pytest.raises(BundleError, match="unknown"):
        _load(pair, _told(bundle, classes=(*bundle.manifest.classes, "unknown")), pair.source[0])


@pytest.mark.parametrize("side", ["target", "source"])
def test_a_manifest_with_an_unknown_position_is_refused(pair: Pair, by_hand: dict[str, Bundle], side: str) -> None:
    position = Position(**{"target": "blocks.1", "source": "blocks.1", side: "nope"})
    with pytest.raises((BundleError, PositionError), match="nope"):
        _load(pair, _told(by_hand["affine"], position=position))


def test_a_manifest_with_other_taps_than_the_module_s_is_refused(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    head = dataclasses.replace(by_hand["router"].manifest.head, module_taps=("blocks.9",))
    with pytest.raises(BundleError, match="taps"):
        _load(pair, _told(by_hand["router"], head=head))


def test_a_head_reads_the_last_taps_of_either_side_and_no_others(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    head = by_hand["router"].manifest.head
    for side in ("target_taps", "module_taps"):
        first = getattr(head, side)[:1]
        with pytest.raises(
            BundleError, match=r"or the last of them, got \('blocks.0',\)" if side[0] == "t" else "last of"
        ):
            _load(pair, _told(by_hand["router"], head=dataclasses.replace(head, **{side: first})))


@pytest.mark.parametrize("change", [{"grid": 0}, {"grid": -1}, {"grid": 3}, {"target_taps": ()}])
def test_a_head_that_its_taps_do_not_fit_is_refused(
    pair: Pair, by_hand: dict[str, Bundle], change: dict[str, object]
) -> None:
    head = dataclasses.replace(by_hand["router"].manifest.head, **change)
    with pytest.raises(BundleError):
        _load(pair, _told(by_hand["router"], head=head))


ARCHITECTURES = [
    "resnet20", "vgg", "torchvision/resnet18", "torchvision/mobilenet_v2",
    "torchvision/swin_t", "torchvision/convnext_tiny", "torchvision/squeezenet1_1",
    pytest.param("torchvision/efficientnet_b0", marks=pytest.mark.slow),
    pytest.param("torchvision/shufflenet_v2_x0_5", marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_a_source_of_any_family_comes_back_from_a_full_bundle(name: str) -> None:
    target = nets.network("cnn", 32, 3, classes="ab", width=4)
    source = nets.network(name, 32, 3, classes="cde")
    images = nets.ImageSet(
        torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        torch.arange(16) % 4,
        tuple("abde"),
    )
    bundle = nets.hand_made(target, source, images, Position(target="input", source="input"), ("e", "d"))
    full = load_module(bundle, trace(*target))
    thin = load_module(bundle.thin(), trace(*target), source[0])
    phi, seen = nets.pictures(2, target[1]), torch.zeros(2, 0)
    answer = full(phi, seen)[1]
    assert answer.shape == (2, 2)
    assert torch.isfinite(answer).all()
    assert torch.equal(answer, thin(phi, seen)[1])
    assert isinstance(bundle.manifest, Manifest)
