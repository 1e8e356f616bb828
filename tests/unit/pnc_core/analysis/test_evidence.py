import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor

from pnc_core.analysis.evidence import Logits, Similarity, module_logits, network_logits, similarity, verify_bundle
from pnc_core.config import CloneConfig, Position
from pnc_core.errors import DataError, MismatchError, SourceMismatch
from pnc_core.graph.architectures import build_network
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.clone import clone
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

CLONED = ("9", "7")


def _columns(logits: Logits, columns: list[int]) -> Logits:
    return lambda pixels: logits(pixels)[:, columns]


def _compare(
    pair: Pair, module: Logits, cloned: tuple[str, ...] = CLONED, images: ImageSet | None = None
) -> Similarity:
    return similarity(network_logits(*pair.source), module, images or pair.test, pair.source[1], cloned)


def test_a_module_that_is_the_source_has_all_of_its_reasons(pair: Pair) -> None:
    own = network_logits(*pair.source)
    found = _compare(pair, _columns(own, [4, 2]))
    assert found.transferability == pytest.approx(1, abs=1e-6)
    assert torch.allclose(found.module, found.source)
    assert found.explicitness == pytest.approx(found.ceiling)
    assert found.explicitness > 0.5
    assert found.shuffled < 0.95


def test_scale_and_offset_of_logits_are_no_reasons(pair: Pair) -> None:
    own = network_logits(*pair.source)
    found = _compare(pair, lambda pixels: 3 * own(pixels)[:, [4, 2]] + 1)
    assert found.transferability == pytest.approx(1, abs=1e-3)


def test_the_other_class_s_logits_are_no_reasons_for_this_class(pair: Pair) -> None:
    found = _compare(pair, _columns(network_logits(*pair.source), [2, 4]))
    assert found.transferability < 0
    assert torch.allclose(found.module, found.source.flip(1))


def test_random_networks_have_unrelated_reasons(pair: Pair) -> None:
    found = []
    for seed in range(10):
        torch.manual_seed(seed)
        stranger = network_logits(build_network(pair.source[1]), pair.source[1])
        found.append(_compare(pair, _columns(stranger, [4, 2])))
    # Average over ten random networks, because a single one may be similar by chance.
    assert abs(sum(s.transferability for s in found) / 10) < 0.2
    assert abs(sum(s.explicitness for s in found) / 10) < 0.2


def test_every_entry_is_the_mean_cosine_over_the_row_s_images() -> None:
    # For a logit that is a weighted sum of pixels the exact weights of the cells are known, up to the ridge.
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 3, 16, generator=generator)

    def linear(which: int) -> Logits:
        return lambda pixels: pixels.flatten(1) @ weights[which].T

    images = ImageSet(
        torch.randint(0, 256, (7, 1, 4, 4), dtype=torch.uint8, generator=generator),
        torch.tensor([0, 1, 2, 0, 1, 2, 2]),
        tuple("abc"),
    )
    found = similarity(linear(0), _columns(linear(1), [1, 0]), images, nets.spec("cnn", 4, 1, "abc"), ("b", "a"))
    assert (found.rows, found.columns, found.images) == (tuple("bac"), tuple("ba"), (2, 2, 3))
    for row, name in enumerate(found.rows):
        for column, cloned in enumerate(found.columns):
            chosen = images.only([name]).images
            wanted = torch.stack([_cosine(x, weights, "abc".index(name), "abc".index(cloned)) for x in chosen])
            assert float(found.module[row, column]) == pytest.approx(float(wanted.mean()), abs=0.05)


def _cosine(image: Tensor, weights: Tensor, row: int, column: int) -> Tensor:
    """Blocking a cell lowers the logit by (brightness - mean) x weight."""
    light = image.flatten().double() - image.double().mean()
    return torch.cosine_similarity(light * weights[0, row], light * weights[1, column], dim=0)


def test_the_rest_counts_classes_that_were_not_cloned() -> None:
    matrix = torch.tensor([[0.9, 0.2], [0.1, 0.7], [0.4, 0.0], [-0.1, 0.0]], dtype=torch.float64)
    found = Similarity(tuple("abcd"), tuple("ab"), (1,) * 4, matrix, matrix, 0.0)
    assert found.transferability == pytest.approx(0.8)
    assert found.explicitness == pytest.approx(0.8 - 0.6 / 6)


def test_one_class_alone_has_no_rest(pair: Pair) -> None:
    found = _compare(pair, _columns(network_logits(*pair.source), [4]), ("9",), pair.test.only(["9"]))
    assert found.rows == ("9",)
    assert found.transferability == pytest.approx(1, abs=1e-6)
    assert math.isnan(found.explicitness)


def test_a_class_with_one_image_has_no_other_to_explain(pair: Pair) -> None:
    one = pair.test.only(["9"]).take(torch.tensor([0]))
    assert math.isnan(_compare(pair, _columns(network_logits(*pair.source), [4]), ("9",), one).shuffled)


def test_a_cloned_class_without_images_is_refused(pair: Pair) -> None:
    with pytest.raises(DataError, match=r"every class of \['9', '7'\]"):
        _compare(pair, _columns(network_logits(*pair.source), [4, 2]), images=pair.test.only(["7", "5"]))


def test_only_the_first_images_of_each_class_are_looked_at(pair: Pair) -> None:
    module = _columns(network_logits(*pair.source), [4, 2])
    found = similarity(network_logits(*pair.source), module, pair.test, pair.source[1], CLONED, limit=3)
    assert found.images == (3,) * 5


def test_a_whole_tail_behind_the_exact_adapter_has_the_source_s_reasons(pair: Pair) -> None:
    start = Position(target="input", source="input")
    config = CloneConfig(
        classes=CLONED, position=start, keep=1.0, max_size=2.0, epochs=1, learning_rate=1e-12, head="affine", views=1
    )
    composed = attach(pair.target[0], clone(pair.target, pair.source, pair.images, config))
    found = _compare(pair, module_logits(composed.traced, composed.attached[0]))
    assert found.transferability == pytest.approx(1, abs=1e-4)
    assert found.explicitness == pytest.approx(found.ceiling, abs=1e-3)


def test_a_trained_module_has_more_of_the_source_s_reasons_than_an_untrained_one(
    pair: Pair, cloned: Bundle, fingerprints: tuple[str, str]
) -> None:
    untrained = nets.hand_made(pair.target, pair.source, pair.images, cloned.manifest.position, CLONED)
    found = []
    for bundle in (untrained, cloned):
        composed = attach(pair.target[0], bundle)
        found.append(_compare(pair, module_logits(composed.traced, composed.attached[0])))
    assert found[0].transferability + 0.1 < found[1].transferability < 1
    assert found[1].shuffled < found[1].transferability
    assert found[1].explicitness > 0.3
    assert (fingerprint(pair.target[0]), fingerprint(pair.source[0])) == fingerprints


def _flipped(bundle: Bundle, name: str) -> Bundle:
    """The same bundle with the lowest bit of one number flipped."""
    tensors = {**bundle.tensors, name: bundle.tensors[name].clone()}
    tensors[name].view(torch.int32).view(-1)[0] ^= 1
    return Bundle(bundle.manifest, tensors)


def _without(bundle: Bundle, name: str) -> Bundle:
    return Bundle(bundle.manifest, {n: t for n, t in bundle.tensors.items() if n != name})


def test_a_clone_is_verified(pair: Pair, cloned: Bundle, fingerprints: tuple[str, str]) -> None:
    full, thin = verify_bundle(cloned, pair.source[0]), verify_bundle(cloned.thin(), pair.source[0])
    slices = [t for n, t in cloned.tensors.items() if n.startswith("module.")]
    assert (full.tensors, full.numbers) == (len(slices), sum(t.numel() for t in slices))
    assert full.numbers == cloned.manifest.sizes.module
    assert (thin.tensors, thin.numbers, thin.channels) == (0, 0, full.channels)
    assert full.channels > 0
    assert fingerprint(pair.source[0]) == fingerprints[1]


@pytest.mark.parametrize("name", ["module.fc.weight", "module.blocks.3.0.weight", "module.blocks.2.1.running_var"])
def test_one_flipped_bit_of_a_slice_is_found_and_named(pair: Pair, by_hand: dict[str, Bundle], name: str) -> None:
    verify_bundle(by_hand["router"], pair.source[0])
    with pytest.raises(MismatchError, match=rf"'{name}' to be a bit-for-bit slice"):
        verify_bundle(_flipped(by_hand["router"], name), pair.source[0])


def test_a_bit_that_is_no_number_s_difference_is_found(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    source = copy.deepcopy(pair.source[0])
    source.fc.bias.data.zero_()
    bundle = by_hand["router"]
    zero = torch.zeros_like(bundle.tensors["module.fc.bias"])
    for sign, fails in ((1.0, False), (-1.0, True)):
        manifest = dataclasses.replace(bundle.manifest, source_fingerprint=fingerprint(source))
        changed = Bundle(manifest, {**bundle.tensors, "module.fc.bias": sign * zero})
        if fails:
            with pytest.raises(MismatchError, match=r"module\.fc\.bias"):
                verify_bundle(changed, source)
        else:
            verify_bundle(changed, source)


@pytest.mark.parametrize("name", ["module.fc.weight", "module.blocks.3.1.running_mean", "kept.blocks.2.0"])
def test_a_missing_tensor_is_found_and_named(pair: Pair, by_hand: dict[str, Bundle], name: str) -> None:
    with pytest.raises(MismatchError, match=f"'{name}'"):
        verify_bundle(_without(by_hand["router"], name), pair.source[0])


@pytest.mark.parametrize("name", ["module.surprise", "kept.surprise"])
@pytest.mark.parametrize("payload", ["thin", "full"])
def test_a_tensor_that_the_source_does_not_have_is_found(
    pair: Pair, by_hand: dict[str, Bundle], name: str, payload: str
) -> None:
    bundle = by_hand["router"].payload(payload)
    with pytest.raises(MismatchError, match=name.replace(".", r"\.")):
        verify_bundle(
            Bundle(bundle.manifest, {**bundle.tensors, name: torch.zeros(2, dtype=torch.int32)}), pair.source[0]
        )


@pytest.mark.parametrize(
    "kept",
    [
        torch.tensor([], dtype=torch.int32),
        torch.tensor([1, 1], dtype=torch.int32),
        torch.tensor([3, 1], dtype=torch.int32),
        torch.tensor([-1, 1], dtype=torch.int32),
        torch.tensor([0, 16], dtype=torch.int32),
        torch.tensor([0, 1]),
        torch.tensor(1, dtype=torch.int32),
    ],
)
@pytest.mark.parametrize("payload", ["thin", "full"])
def test_indices_that_are_not_ascending_channels_are_found(
    pair: Pair, by_hand: dict[str, Bundle], kept: Tensor, payload: str
) -> None:
    bundle = by_hand["router"].payload(payload)
    changed = Bundle(bundle.manifest, {**bundle.tensors, "kept.blocks.2.0": kept})
    with pytest.raises(MismatchError, match=r"'kept\.blocks\.2\.0'.*channels of 16"):
        verify_bundle(changed, pair.source[0])


def test_other_channels_of_the_source_are_found(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    bundle = by_hand["router"]
    kept = bundle.tensors["kept.blocks.2.0"]
    others = torch.tensor(sorted(set(range(16)) - set(kept.tolist())), dtype=torch.int32)[: len(kept)]
    assert len(others) == len(kept)
    with pytest.raises(MismatchError, match=r"module\.blocks\.2"):
        verify_bundle(Bundle(bundle.manifest, {**bundle.tensors, "kept.blocks.2.0": others}), pair.source[0])


@pytest.mark.parametrize("payload", ["thin", "full"])
def test_a_source_that_differs_where_nothing_was_copied_is_another_source(
    pair: Pair, by_hand: dict[str, Bundle], payload: str
) -> None:
    other = copy.deepcopy(pair.source[0])
    other.blocks[0][0].weight.data.view(torch.int32).view(-1)[0] ^= 1  # before the position
    with pytest.raises(SourceMismatch, match="cut from the source sha256:"):
        verify_bundle(by_hand["router"].payload(payload), other)


def test_a_class_the_source_lacks_is_found(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    manifest = dataclasses.replace(by_hand["router"].manifest, classes=("zebra",))
    with pytest.raises(MismatchError, match="zebra"):
        verify_bundle(Bundle(manifest, by_hand["router"].tensors), pair.source[0])
