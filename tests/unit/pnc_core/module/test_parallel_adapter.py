import pytest
import torch

from pnc_core.config import Position
from pnc_core.errors import BundleError, PositionError
from pnc_core.identity import fingerprint
from pnc_core.module.composed import attach
from pnc_core.module.tail import copied_tensors, extract, with_parallel_adapters
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

FAMILIES = [("resnet20", 16), ("vgg", 16), ("torchvision/mobilenet_v2", 32), ("torchvision/convnext_tiny", 32)]


@pytest.mark.parametrize(("architecture", "size"), FAMILIES)
def test_fresh_adapters_change_nothing_and_moved_ones_do(architecture: str, size: int) -> None:
    tail, _, _, x = nets.opened(architecture, size, 2)
    small = extract(tail, nets.some_channels(tail))
    with torch.no_grad():
        before, _ = small.forward(x)
        reconstructed = with_parallel_adapters(extract(tail, small.kept))
        assert torch.equal(reconstructed.forward(x)[0], before)
        nets.randomise(p for adapter in reconstructed.inner.values() for p in adapter.parameters())
        assert not torch.allclose(reconstructed.forward(x)[0], before, atol=1e-3)


@pytest.mark.parametrize(("architecture", "size"), FAMILIES)
def test_adapters_are_light_and_not_counted_among_the_copies(architecture: str, size: int) -> None:
    tail, _, _, _ = nets.opened(architecture, size, 2)
    small = extract(tail, nets.some_channels(tail))
    reconstructed = with_parallel_adapters(extract(tail, small.kept))
    learned = sum(p.numel() for adapter in reconstructed.inner.values() for p in adapter.parameters())
    assert reconstructed.inner
    assert 0 < learned < 0.25 * small.parameter_count
    assert reconstructed.parameter_count == small.parameter_count
    assert copied_tensors(reconstructed).keys() == copied_tensors(small).keys()


def test_an_adapter_sees_what_its_layer_sees_and_adds_to_what_it_makes() -> None:
    tail, _, _, _ = nets.opened("resnet20", 16, 2)
    reconstructed = with_parallel_adapters(extract(tail, nets.some_channels(tail)))
    name = next(n for n in reconstructed.inner if n.endswith("layer2.0.conv1"))
    layer, adapter = reconstructed.part.get_submodule(name), reconstructed.inner[name]
    nets.randomise(adapter.parameters())
    seen = torch.randn(2, layer.in_channels, 8, 8)
    with torch.no_grad():
        wanted = torch.einsum("oi,nihw->nohw", adapter.up, seen[:, :, ::2, ::2]) + adapter.bias[:, None, None]
        assert torch.allclose(adapter(seen), wanted, atol=1e-5)
        assert adapter(seen).shape == layer(seen).shape


def test_a_layer_that_cannot_have_one_is_refused() -> None:
    tail, _, _, _ = nets.opened("resnet20", 16, 2)
    with pytest.raises(PositionError, match=r"got \['bn1'\]"):
        with_parallel_adapters(extract(tail, nets.some_channels(tail)), ["bn1"])


def test_they_come_back_from_a_bundle_thin_and_full(pair: Pair) -> None:
    bundle = nets.hand_made(pair.target, pair.source, pair.images, MIDDLE, ("9", "7"), "router", inner=True)
    plain = nets.hand_made(pair.target, pair.source, pair.images, MIDDLE, ("9", "7"), "router")
    before = fingerprint(pair.target[0])
    x = nets.pictures(8, pair.target[1])
    with torch.no_grad():
        full, thin = attach(pair.target[0], bundle), attach(pair.target[0], bundle.thin(), pair.source[0])
        assert torch.equal(full(x), thin(x))
        assert not torch.equal(full(x), attach(pair.target[0], plain)(x))
    assert fingerprint(pair.target[0]) == before


def test_a_manifest_that_names_another_layer_is_refused(pair: Pair) -> None:
    bundle = nets.hand_made(pair.target, pair.source, pair.images, MIDDLE, ("9",), inner=True)
    object.__setattr__(bundle.manifest, "inner", ("bn1",))
    with pytest.raises(BundleError, match=r"manifest.inner.*got \['bn1'\]"):
        attach(pair.target[0], bundle)


MIDDLE = Position(target="blocks.1", source="blocks.1")
