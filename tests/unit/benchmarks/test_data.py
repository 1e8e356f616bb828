from dataclasses import replace

import pytest
import torch

from benchmarks import sources
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
