import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from pnc_core.errors import DataError
from pnc_core.images import ImageSet, Views, augment, batches, preprocess
from pnc_core.preprocessing import Geometry
from tests.unit.pnc_core import nets


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int = 8, channels: int = 1, height: int = 8, width: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=_seeded())


def _set(labels: list[int], classes: str = "abc") -> ImageSet:
    return ImageSet(_images(len(labels)), torch.tensor(labels), tuple(classes))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])),
        (_images(2), torch.tensor([0, 1], dtype=torch.int32)),
        (_images(2), torch.tensor([0])),
        (_images(2), torch.tensor([0, 3])),
        (_images(2), torch.tensor([-1, 0])),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(images: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"expected .+, got"):
        ImageSet(images, labels, ("a", "b", "c"))


def test_only_relabels_in_the_order_given_and_drops_the_rest() -> None:
    whole = _set([0, 1, 2, 0])
    part = whole.only(["c", "x", "a"])
    assert part.classes == ("c", "x", "a")
    assert part.labels.tolist() == [2, 0, 2]
    assert torch.equal(part.images, whole.images[[0, 2, 3]])


def test_a_split_shares_out_every_class_and_loses_nothing() -> None:
    whole = ImageSet(torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1), torch.arange(40) % 2, ("a", "b"))
    first, second = whole.split(0.25, _seeded())
    assert torch.bincount(first.labels).tolist() == [15, 15]
    assert torch.bincount(second.labels).tolist() == [5, 5]
    assert sorted(torch.cat([first.images, second.images]).flatten().tolist()) == list(range(40))


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_split_leaves_at_least_one_image_of_a_class_on_either_side(share: float) -> None:
    first, second = _set([0, 0, 1, 1, 1, 2, 2]).split(share, _seeded())
    assert set(first.labels.tolist()) == set(second.labels.tolist()) == {0, 1, 2}


def test_a_split_leaves_two_of_three_images_to_be_split_again() -> None:
    first, second = _set([0, 0, 0, 1, 1, 1, 1]).split(0.5, _seeded())
    assert torch.bincount(first.labels).tolist() == [2, 2]
    assert torch.bincount(second.labels).tolist() == [1, 2]


def test_copies_stay_on_one_side_of_a_split_and_the_first_of_equal_labels_remains() -> None:
    pixels = torch.arange(8, dtype=torch.uint8).repeat(3)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    labels = torch.tensor([0] * 4 + [1] * 4).repeat(3)
    labels[-1] = 0  # the same pixels with another label
    copied = ImageSet(pixels, labels, ("a", "b"))
    assert copied.groups.tolist() == list(range(8)) * 3
    for seed in range(5):
        first, second = copied.split(0.25, torch.Generator().manual_seed(seed))
        assert set(first.images[:, 0, 0, 0].tolist()).isdisjoint(second.images[:, 0, 0, 0].tolist())
        assert len(first) + len(second) == 24
        assert set(first.labels.tolist()) == set(second.labels.tolist()) == {0, 1}
    kept = copied.without_copies()
    assert kept.images[:, 0, 0, 0].tolist() == [*range(8), 7]
    assert kept.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0]
    assert kept.without_copies() is kept


def test_a_split_of_a_class_with_one_image_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"class 'b': expected at least 2 different images, got 1"):
        _set([0, 0, 1], "ab").split(0.5, _seeded())


def test_the_same_seed_gives_the_same_split_and_sample() -> None:
    whole = _set([0, 1] * 20, "ab")
    for draw in (lambda g: whole.split(0.5, g)[0].images, lambda g: whole.sample(10, g).images):
        assert torch.equal(draw(_seeded(3)), draw(_seeded(3)))
        assert not torch.equal(draw(_seeded(3)), draw(_seeded(4)))
    assert len(whole.sample(1000, _seeded())) == 40


def test_preprocess_scales_and_normalises_every_channel() -> None:
    images = _images(3, channels=1, width=8)
    x = preprocess(images, nets.spec("cnn", 8, 1))
    assert torch.equal(x, (images.float() / 255 - 0.5) / 0.25)


def test_preprocess_repeats_grey_and_resizes() -> None:
    x = preprocess(_images(2), nets.spec("cnn", 12, 3))
    assert x.shape == (2, 3, 12, 12)
    assert x.dtype == torch.float32
    assert torch.equal(x[:, 0], x[:, 2])


def test_preprocess_refuses_other_channels() -> None:
    with pytest.raises(DataError, match="expected 3 channels, got 2"):
        preprocess(_images(2, channels=2), nets.spec("cnn", 8, 3))


def test_colours_become_grey_with_the_weights_of_pillow() -> None:
    colour = _images(2, channels=3)
    spec = nets.spec("cnn", 8, 1)
    grey = [np.asarray(Image.fromarray(one.permute(1, 2, 0).numpy()).convert("L")) for one in colour]
    found, wanted = preprocess(colour, spec), preprocess(torch.from_numpy(np.stack(grey))[:, None], spec)
    assert (found - wanted).abs().max() <= 0.51 / 255 / spec.std[0]  # Pillow rounds to 8 bits


def _shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    padded = F.pad(image[None].float(), (2, 2, 1, 1), mode="replicate")[0].to(torch.uint8)
    return padded[:, 1 + down : 9 + down, 2 + right : 18 + right]


def test_a_view_is_the_image_moved_by_whole_pixels_with_repeated_edges() -> None:
    images = _images(32)
    views = augment(images, "shift", _seeded())
    assert not torch.equal(views, images)
    for image, view in zip(images, views, strict=True):
        assert any(torch.equal(view, _shifted(image, y, x)) for y in (-1, 0, 1) for x in range(-2, 3))


def test_a_view_may_also_be_mirrored() -> None:
    images = _images(32)
    found = set()
    for image, view in zip(images, augment(images, "shift-flip", _seeded()), strict=True):
        for flipped in (False, True):
            seen = view.flip(2) if flipped else view
            if any(torch.equal(seen, _shifted(image, y, x)) for y in (-1, 0, 1) for x in range(-2, 3)):
                found.add(flipped)
                break
        else:
            pytest.fail("a view is neither a shifted nor a mirrored image")
    assert found == {False, True}


def test_no_augmentation_returns_the_images() -> None:
    images = _images(2)
    assert augment(images, "none", _seeded()) is images


def test_batches_cover_every_image_once() -> None:
    assert torch.cat(list(batches(10, 4))).tolist() == list(range(10))
    shuffled = list(batches(10, 4, _seeded()))
    assert [len(b) for b in shuffled] == [4, 4, 2]
    assert sorted(torch.cat(shuffled).tolist()) == list(range(10)) != torch.cat(shuffled).tolist()


def _twice_as_large(images: torch.Tensor) -> torch.Tensor:
    return images.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_augmented_views_are_moved_together() -> None:
    images, geometry = _images(20, 3, 8, 8), Geometry((3, 16, 16))
    moved = augment(Views(images, {geometry: _twice_as_large(images)}), "shift-flip", _seeded())
    assert torch.equal(moved.fitted[geometry], _twice_as_large(moved.plain))
    assert torch.equal(moved.plain, augment(images, "shift-flip", _seeded()))
    assert not torch.equal(moved.plain, images)


def test_views_follow_the_images_of_a_set() -> None:
    images, geometry = _images(8, 3, 8, 8), Geometry((3, 16, 16))
    whole = ImageSet(images, torch.arange(8) % 2, ("a", "b"), {geometry: _twice_as_large(images)})
    for part in (whole.only(["b"]), whole.take(torch.tensor([5, 2])), *whole.split(0.25, _seeded())):
        assert torch.equal(part.fitted[geometry], _twice_as_large(part.images))
    with pytest.raises(DataError, match=r"fitted: expected uint8 \(8, 3, 16, 16\)"):
        ImageSet(images, whole.labels, whole.classes, {geometry: images})
