import io
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.comparison.data import DEVELOPMENT_SEED
from benchmarks.imagenet import FewImages, load
from pnc_client.parquet import write_parquet
from pnc_core.config import NetworkSpec

FOLDERS = tuple(f"n0000{i:02}" for i in range(16))
NAMES = tuple(f"animal {i}" for i in range(16))
SOURCE = NetworkSpec(
    architecture="torchvision/mobilenet_v3_small", classes=NAMES, input_size=(3, 224, 224), mean=(0.5,) * 3,
    std=(0.5,) * 3, class_aliases={name: (folder,) for name, folder in zip(NAMES, FOLDERS, strict=True)},
)  # fmt: skip


def _png(place: int, number: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (place, number, 0)).save(content, "png")
    return content.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Thirty training and five test images of each of sixteen classes."""
    folder = tmp_path_factory.mktemp("images")
    for name, count in (("train", 30), ("test", 5)):
        rows = [(label, _png(place, number)) for place, label in enumerate(FOLDERS) for number in range(count)]
        write_parquet(folder / f"{name}.parquet", rows, FOLDERS)
    return folder / "train.parquet", folder / "test.parquet"


def drawn(files: tuple[Path, Path], seed: int) -> FewImages:
    return load(*files, SOURCE, seed, per_class=20)


def test_classes_have_the_source_names_and_differ_with_the_seed(files: tuple[Path, Path]) -> None:
    first, second = drawn(files, 0), drawn(files, 1)
    assert len({*first.target, *first.cloned}) == 15
    assert {*first.target, *first.cloned} <= set(NAMES)
    assert (first.target, first.cloned) != (second.target, second.cloned)


def test_methods_learn_from_as_many_images_of_every_class(files: tuple[Path, Path]) -> None:
    split = drawn(files, 0)
    images = split.sample(0.04)
    assert images.classes == (*split.target, *split.cloned)
    assert images.labels.bincount().tolist() == [20] * 15
    assert len(split.test) == 16 * 5


def test_a_development_split_leaves_the_test_images_alone(files: tuple[Path, Path]) -> None:
    split = drawn((files[0], Path("absent")), DEVELOPMENT_SEED)
    assert len(split.test) == 96
    assert len(split.train) == 16 * 30 - 96
