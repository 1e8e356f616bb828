import dataclasses

import pytest
import torch
from torch import Tensor, nn

from pnc_core.config import MIN_IMAGES, CloneConfig
from pnc_core.errors import Cancelled, ConfigError, DataError, NetworkError
from pnc_core.images import ImageSet, preprocess
from pnc_core.method.job import name_images
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair


def _job(pair: Pair, images: ImageSet | None = None, **changes):
    config = CloneConfig(**{"classes": ("9", "7"), "batch_size": 32, **changes})
    return nets.job(pair.target, pair.source, images or pair.images, config)


def test_images_are_relabelled_old_classes_first_and_held_out_by_share(pair: Pair) -> None:
    job = _job(pair, validation=0.25)
    assert job.train.classes == job.validation.classes == ("0", "1", "2", "3", "4", "9", "7")
    used = len(job.train) + len(job.validation)
    assert used == int(sum((pair.images.labels == int(c)).sum() for c in job.train.classes))
    assert len(job.validation) / used == pytest.approx(0.25, abs=0.03)
    assert (job.old_classes, job.cloned) == (5, (4, 2))


def test_the_same_seed_gives_the_same_split_and_another_seed_another(pair: Pair) -> None:
    first, again, other = (_job(pair, seed=seed).train.images for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_randomness_of_one_purpose_is_independent_of_others(pair: Pair) -> None:
    job = _job(pair)
    drawn = {p: torch.rand(3, generator=job.generator(*p)).tolist() for p in [("a",), ("b",), ("a", 1)]}
    assert len({tuple(v) for v in drawn.values()}) == 3
    assert torch.rand(3, generator=job.generator("a")).tolist() == drawn[("a",)]


@pytest.mark.parametrize(
    ("classes", "message"), [(("9", "x"), "got 'x'"), (("3",), "got '3'"), (("9", "#4"), "got '9' and '#4'")]
)
def test_a_class_that_cannot_be_cloned_is_refused(pair: Pair, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _job(pair, classes=classes)


def test_a_class_is_also_named_by_its_number(pair: Pair) -> None:
    assert _job(pair, classes=("#4", "7")).config.classes == ("9", "7")


def test_a_class_that_both_networks_have_is_refused(pair: Pair) -> None:
    network, spec = pair.source
    both = (network, dataclasses.replace(spec, classes=("0", "6", "7", "8", "9")))
    with pytest.raises(ConfigError, match=r"the target does not have, got \['0'\]"):
        nets.job(pair.target, both, pair.images, CloneConfig(classes=("0",)))


def test_missing_images_are_named(pair: Pair) -> None:
    with pytest.raises(DataError, match=r"fewer of \['0', '7'\]"):
        _job(pair, pair.images.only(tuple("12345689")))


def test_as_few_images_as_the_bound_says_are_enough(pair: Pair) -> None:
    few = torch.cat([torch.nonzero(pair.images.labels == c).flatten()[:MIN_IMAGES] for c in range(10)])
    assert len(_job(pair, pair.images.take(few)).validation) == 7
    with pytest.raises(DataError, match=rf"at least {MIN_IMAGES} of every .+ got fewer of \['0'\]"):
        _job(pair, pair.images.take(few[1:]), max_size=0.6)


def test_a_job_that_may_take_the_whole_source_needs_one_image_of_a_class_and_then_holds_none_out(pair: Pair) -> None:
    few = torch.cat([torch.nonzero(pair.images.labels == c).flatten()[: 1 + (c != 0)] for c in range(10)])
    job = _job(pair, pair.images.take(few))
    assert not job.is_split
    assert len(job.train) == len(job.validation) == len(job.every) == 13
    with pytest.raises(DataError, match=r"at least 1 of every .+ got fewer of \['0'\]"):
        _job(pair, pair.images.take(few[1:]))


def test_copies_of_an_image_do_not_count_as_images(pair: Pair) -> None:
    few = torch.cat([torch.nonzero(pair.images.labels == c).flatten()[:2].repeat(5) for c in range(10)])
    job = _job(pair, pair.images.take(few))
    assert torch.bincount(job.every.labels).tolist() == [2] * 7
    assert not job.is_split


def test_without_labels_and_old_images_only_cloned_classes_are_named(pair: Pair) -> None:
    new = pair.images.only(("9", "7"))
    job = _job(pair, new, labels=False, old_images=False)
    assert len(job.train) + len(job.validation) == len(new)
    named = name_images(job, new.images)
    assert int(named.labels.min()) == job.old_classes
    assert float((named.labels - job.old_classes == new.labels).float().mean()) > 0.9


def test_reading_gives_both_networks_own_answers(pair: Pair) -> None:
    job = _job(pair)
    batch = next(job.read(job.train))
    pixels = job.train.images[:32]
    with torch.no_grad():
        assert torch.equal(batch.old, pair.target[0](preprocess(pixels, pair.target[1])))
        assert torch.equal(batch.own, pair.source[0](preprocess(pixels, pair.source[1]))[:, [4, 2]])
    assert torch.equal(batch.labels, job.train.labels[:32])
    assert batch.target.keys() == {"input", "blocks.0", "blocks.1", "blocks.2", "blocks.3"} == batch.source.keys()
    assert not batch.own.requires_grad


def test_reading_covers_every_image_in_order_or_shuffled(pair: Pair) -> None:
    job = _job(pair)
    ordered = torch.cat([b.labels for b in job.read(job.validation)])
    shuffled = torch.cat([b.labels for b in job.read(job.validation, job.generator("x"))])
    assert torch.equal(ordered, job.validation.labels)
    assert not torch.equal(shuffled, ordered)
    assert torch.equal(torch.bincount(shuffled), torch.bincount(ordered))


def test_a_cancelled_job_raises_at_the_next_batch(pair: Pair) -> None:
    answers = iter([False, True])
    job = dataclasses.replace(_job(pair), cancelled=lambda: next(answers))
    batches = job.read(job.train)
    next(batches)
    with pytest.raises(Cancelled):
        next(batches)


class _Parallel(nn.Module):
    """Two branches from the image to the logits of five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 5)) for _ in "ab")

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("side", ["target", "source"])
def test_a_network_of_branches_that_meet_at_the_logits_is_refused(pair: Pair, side: str) -> None:
    network = _Parallel().eval(), getattr(pair, side)[1]
    with pytest.raises(NetworkError, match=f"{side}: expected a layer .* got parallel branches"):
        _job(dataclasses.replace(pair, **{side: network}))
