"""Arrays of numpy and folders of torchvision, read without either, to the same pixels."""

import gzip
import io
import pickle  # noqa: TID251 - files of CIFAR are pickles
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pnc_client.sources import Images, Options, SourceError, open_images
from tests.unit.client.sources.makers import counts, idx, pickled

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (5, 6, 7, 3), np.uint8)
GREYS = COLOURS[..., 0]
LABELS = np.array([3, 0, 3, 11, 0])


def _pixels(images: Images) -> "np.ndarray[Any, Any]":
    return np.stack([np.asarray(Image.open(io.BytesIO(item.raw))) for item in images])


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        (COLOURS, COLOURS), (GREYS, GREYS), (COLOURS.transpose(0, 3, 1, 2).copy(), COLOURS), (GREYS[..., None], GREYS),
        (GREYS > 99, (GREYS > 99).astype(np.uint8) * 255), (np.concatenate([COLOURS, GREYS[..., None]], 3),) * 2,
        (GREYS.astype("<u2") * 257, GREYS.astype(np.uint16) * 257),
        (GREYS.astype(">u2") * 257, GREYS.astype(np.uint16) * 257),
    ],
    ids=["NHWC", "NHW", "NCHW", "NHW1", "bool", "NHW4", "16 bits", "16 bits, high byte first"],
)  # fmt: skip
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pixels_are_kept(tmp_path: Path, save: Any, stored: Any, seen: Any) -> None:
    save(tmp_path / "x.npz", images=stored, labels=LABELS)
    images = open_images(tmp_path / "x.npz")
    assert images.classes == ["0", "3", "11"]
    assert np.array_equal(_pixels(images), seen)


@pytest.mark.parametrize(
    "labels", [LABELS.astype(kind) for kind in ("u1", "<i4", ">i8", "u8")] + [LABELS.astype(str), LABELS[:, None]],
)  # fmt: skip
def test_labels_of_every_type_are_read(tmp_path: Path, labels: Any) -> None:
    np.savez(tmp_path / "x.npz", x=GREYS, y=labels)
    assert counts(open_images(tmp_path / "x.npz")) == {"3": 2, "0": 2, "11": 1}


def test_splits_are_in_the_names_of_the_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", x_train=GREYS, y_train=LABELS, x_test=GREYS[:2], y_test=LABELS[:2])
    with pytest.raises(SourceError, match="splits 'test', 'train'"):
        open_images(tmp_path / "mnist.npz")
    assert counts(open_images(tmp_path / "mnist.npz", Options(split="test"))) == {"3": 1, "0": 1}
    np.save(tmp_path / "x.npy", COLOURS)
    images = open_images(tmp_path / "x.npy")
    assert images.classes is None
    assert np.array_equal(_pixels(images), COLOURS)


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    for arrays, said in (
        ({"images": GREYS / 255}, r"uint8 or uint16, got f8; convert"),
        ({"images": np.asfortranarray(GREYS)}, "rows first, got columns first"),
        ({"images": np.array([{}])}, "expected numbers, got objects"),
        ({"images": GREYS[0]}, r"one array of images \(N, H, W, C\), got images \(6, 7\)"),
        ({"images": RANDOM.integers(0, 9, (2, 5, 5, 7), np.uint8)}, "of 1 to 4 channels"),
        ({"images": GREYS, "labels": LABELS / 2}, "whole numbers or texts"),
    ):
        np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(SourceError, match=said):
            counts(open_images(tmp_path / "x.npz"))


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_as_torchvision_keeps_it(tmp_path: Path, packed: bool) -> None:
    raw = tmp_path / "MNIST" / "raw"
    for start, count in (("train", 5), ("t10k", 3)):
        idx(raw / f"{start}-images-idx3-ubyte", GREYS[:count])
        idx(raw / f"{start}-labels-idx1-ubyte", LABELS[:count] % 10)
    if packed:
        for path in [*raw.iterdir()]:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    with pytest.raises(SourceError, match="splits"):
        open_images(tmp_path)
    images = open_images(tmp_path, Options(split="train"))
    assert images.classes == ["0", "1", "2", "3"]
    assert np.array_equal(_pixels(images), GREYS)
    assert counts(open_images(raw, Options(split="test"))) == {"3": 2, "0": 1}
    fashion = tmp_path / "FashionMNIST"
    (tmp_path / "MNIST").rename(fashion)
    assert counts(open_images(tmp_path, Options(split="test"))) == {"Dress": 2, "T-shirt/top": 1}


def test_cifar_as_torchvision_keeps_it(tmp_path: Path) -> None:
    ten, hundred = tmp_path / "ten" / "cifar-10-batches-py", tmp_path / "hundred" / "cifar-100-python"
    data = RANDOM.integers(0, 256, (3, 3072), np.uint8)
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        pickled(ten / name, {"data": data, "labels": [0, 1, 1], "filenames": ["a"] * 3})
    pickled(ten / "batches.meta", {"label_names": ["airplane", "automobile"]})
    images = open_images(tmp_path / "ten", Options(split="train"))
    assert images.classes == ["airplane", "automobile"]
    assert np.array_equal(_pixels(images), np.tile(data.reshape(3, 3, 32, 32).transpose(0, 2, 3, 1), (2, 1, 1, 1)))
    for name in ("train", "test"):
        pickled(hundred / name, {"data": data, "fine_labels": [2, 0, 2], "coarse_labels": [0, 0, 0]})
    pickled(hundred / "meta", {"fine_label_names": ["apple", "bee", "cup"], "coarse_label_names": ["things"]})
    assert counts(open_images(hundred, Options(split="all"))) == {"cup": 4, "apple": 2}
    coarse = Options(split="test", label_column="coarse_labels")
    assert counts(open_images(hundred, coarse)) == {"things": 3}


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "canary",))

    folder = tmp_path / "cifar-10-batches-py"
    pickled(folder / "test_batch", {"data": np.zeros((1, 3072), np.uint8), "labels": [0]})
    (folder / "batches.meta").write_bytes(pickle.dumps(Touch()))
    with pytest.raises(SourceError, match="expected numbers and texts, got pathlib"):
        open_images(folder)
    assert not (tmp_path / "canary").exists()
