from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import sources
from benchmarks.comparison import data
from benchmarks.comparison.data import DEVELOPMENT_SEED, load
from benchmarks.comparison.task import Task
from benchmarks.comparison.zoo import Network
from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.images import ImageSet


def _prints(images: ImageSet) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.images}


def test_test_images_of_the_digits_are_the_same_for_every_split_and_no_development_split_has_seen_them() -> None:
    first, second = load("digits", None, 0), load("digits", None, 1)
    assert first.target != second.target
    assert torch.equal(first.test.images, second.test.images)
    for seed in (DEVELOPMENT_SEED, DEVELOPMENT_SEED + 1):
        chosen_on = load("digits", None, seed)
        seen = _prints(chosen_on.train) | _prints(chosen_on.test)
        assert len(chosen_on.train) + len(chosen_on.test) == len(first.train)
        assert not seen & _prints(first.test)


@pytest.mark.parametrize("method", ["modules", "lwf"])
def test_every_step_of_a_line_of_sources_sees_the_same_images_of_a_class(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ImageSet] = []

    def remember(task: Task, networks: list[Network]) -> sources.Learn:
        def learn(number: int, known: tuple[str, ...], part: tuple[str, ...]) -> object:
            base = task.split.target if method == "modules" else known
            at = sources._task_of_step(task, task.target, networks[number], base, part)
            seen.append(at.images)
            seen.append(sources._task_of_step(task, task.target, networks[number], known, part).images)
            return lambda pixels: torch.zeros(len(pixels), len(known) + len(part))

        return learn  # type: ignore[return-value]

    def untrained(split: object, classes: tuple[str, ...], *_: object) -> Network:
        spec = replace(load("digits", None, 0).spec(classes), options={"width": 4})
        return build_network(NetworkSpec(**vars(spec))).eval(), spec

    monkeypatch.setattr(sources, "SOURCES", 2)
    monkeypatch.setattr(sources, "CLASSES", 2)
    monkeypatch.setattr(sources, "train_or_load", untrained)
    monkeypatch.setitem(sources.METHODS, method, remember)
    split = load("digits", None, 0)
    list(sources.measure(split, method, (0.3, "float32"), None))  # type: ignore[arg-type]
    for name in split.source[:4]:
        drawn = [_prints(images.only([name])) for images in seen if name in images.classes]
        assert len(drawn) >= 2
        assert all(other == drawn[0] for other in drawn)


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few images in place of CIFAR's."""
    names = {"cifar10": tuple(f"c{i}" for i in range(10)), "cifar100": tuple(f"h{i}" for i in range(100))}

    def read(name: str, root: Path) -> tuple[ImageSet, ImageSet]:
        labels = torch.arange(len(names[name])).repeat(4)
        images = ImageSet(torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8), labels, names[name])
        return images, images

    monkeypatch.setattr(data, "_torchvision", read)
    data._whole.cache_clear()
    yield
    data._whole.cache_clear()


def test_in_the_public_suite_classes_of_one_data_set_meet_a_source_of_the_other(pictures: None) -> None:
    split, other = load("public", Path("root"), 0), load("public", Path("root"), 1)
    assert {name[0] for name in split.target} == {"h"}
    assert (len(split.target), len(split.cloned)) == (10, 3)
    assert split.source == tuple(f"c{i}" for i in range(10))
    assert set(split.cloned) < set(split.source)
    assert (split.target, split.cloned) != (other.target, other.cloned)
    assert split.judged.classes == (*split.target, *split.cloned)
    assert len(split.judged) == 13 * 4


def test_a_missing_data_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--data-root: expected a folder for tiny30, got none"):
        load("tiny30", None, 0)
    with pytest.raises(SystemExit, match=r"expected tiny-imagenet-40-train\.parquet in it, got no such file"):
        load("tiny20", tmp_path, 0)
