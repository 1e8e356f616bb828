"""Duplicates are found whatever compressed or resized them, and different drawings are none."""

import io

import numpy as np
import pytest
from PIL import Image

from app.datasets.looking import BAD, CONSTANT, FACTS, Facts, look
from app.datasets.oddities import too_small, warnings_of
from app.datasets.survey import near_pairs, survey


def photo(seed: int, side: int = 64) -> Image.Image:
    """Smooth random colours, as in a photograph."""
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def facts_of(files: list[bytes]) -> Facts:
    return np.stack([look(row, raw).facts for row, raw in enumerate(files)])


def surveyed(files: list[bytes], labels: list[int] | None = None):  # type: ignore[no-untyped-def]
    return survey(facts_of(files), np.array(labels if labels is not None else [0] * len(files), np.int64))


def test_equal_pixels_are_copies_whatever_the_file_is() -> None:
    one, grey = photo(1), photo(2).convert("L")
    files = [
        saved(one),
        saved(one, "BMP"),
        saved(one, "TIFF"),
        saved(grey),
        saved(grey.convert("RGB")),
        saved(photo(3)),
    ]
    found = surveyed(files, [0, 0, 1, 0, 0, 1])
    assert (found.exact, found.near, found.across, found.good) == (3, 0, 1, 6)
    assert found.examples == [(0, 1), (0, 2), (3, 4)]
    assert found.distinct == {0: 2, 1: 2}


def test_another_compression_or_size_is_nearly_a_copy() -> None:
    images = [photo(seed) for seed in range(30)]
    files = [saved(image) for image in images]
    files += [saved(image, "JPEG", quality=75) for image in images[:10]]
    files += [saved(image.resize((48, 48), Image.Resampling.LANCZOS)) for image in images[10:20]]
    found = surveyed(files, [row % 3 for row in range(30)] + [row % 3 for row in range(20)])
    assert (found.exact, found.near, found.across) == (0, 20, 0)
    assert found.distinct == {0: 10, 1: 10, 2: 10}
    assert len(found.examples) == 10
    assert found.examples[0] == (0, 30)


def test_different_pictures_are_no_copies() -> None:
    assert surveyed([saved(photo(seed)) for seed in range(300)]).near == 0


def test_pairs_are_those_of_comparing_all_with_all() -> None:
    rng = np.random.default_rng(0)
    base = np.stack(
        [np.asarray(photo(seed).convert("L").resize((16, 16), Image.Resampling.BOX)) for seed in range(150)]
    )
    noisy = np.clip(base[:60].astype(int) + rng.integers(-2, 3, (60, 16, 16)), 0, 255).astype(np.uint8)
    pairs = near_pairs(np.concatenate([base, noisy]))
    assert {tuple(pair) for pair in pairs.tolist()} == {(row, 150 + row) for row in range(60)}


def test_images_of_one_colour_and_bad_ones_are_counted() -> None:
    flat = [saved(Image.new("RGB", (9, 9), shade)) for shade in ("red", "blue")]
    flat.append(saved(Image.new("RGB", (9, 9), (40, 90, 200)), "JPEG"))
    files = [*flat, b"words", saved(photo(1))]
    facts = facts_of(files)
    assert facts["state"].tolist() == [CONSTANT, CONSTANT, CONSTANT, BAD, 0]
    found = survey(facts, np.array([0, 1, 0, 1, 1]))
    assert (found.constant, found.good, found.near) == (3, 4, 0)
    assert found.sizes["shorter_smallest"] == 9
    assert survey(np.zeros(0, FACTS), np.zeros(0, np.int64)).good == 0


@pytest.mark.parametrize(
    ("counts", "changes", "codes"),
    [
        ({"a": 50, "b": 40}, {}, []),
        ({"a": 50, "b": 40}, {"exact": 3, "examples": [[1, 2]]}, ["duplicates"]),
        ({"a": 50, "b": 40}, {"near": 2, "across": 1}, ["near_duplicates", "copies_across_classes"]),
        ({"a": 50, "b": 40}, {"constant": 1}, ["constant_images"]),
        ({"a": 400, "b": 40}, {}, ["uneven_classes"]),
        ({"a": 50, "b": 40}, {"distinct": {"a": 9, "b": 40}}, ["few_images"]),
        ({"a": 50}, {"distinct": {"a": 50}}, ["one_class"]),
    ],
)
def test_warnings_name_what_is_odd(counts: dict[str, int], changes: dict[str, object], codes: list[str]) -> None:
    plain = {"unreadable": 0, "first_unreadable": [], "exact": 0, "near": 0, "across": 0, "constant": 0, "examples": []}
    findings = {**plain, "distinct": counts, **changes}
    found = warnings_of(list(counts), counts, findings, 90)
    assert [one["code"] for one in found] == codes
    if codes == ["duplicates"]:
        assert "3 of 90 images are exact copies of others, such as rows 1 and 2" in found[0]["detail"]


def test_images_far_smaller_than_an_input_are_said() -> None:
    findings = {"sizes": {"shorter_median": 32}}
    (warning,) = too_small(findings, "resnet@1", (3, 224, 224))
    assert "a side of at most 32 pixels, and resnet@1 sees 224" in warning["detail"]
    assert list(too_small(findings, "small@1", (3, 64, 64))) == []
    assert list(too_small(None, "any@1", (3, 224, 224))) == []
