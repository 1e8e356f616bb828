import dataclasses

import pytest
import torch

from pnc_core.config import CloneConfig, Position
from pnc_core.errors import PositionError
from pnc_core.images import ImageSet
from pnc_core.method.heads.fit import Accuracy
from pnc_core.method.insert import Insertion, stitch
from pnc_core.method.job import Job, Progress
from pnc_core.method.search import (
    MAX_CANDIDATES,
    _screen_scores,
    candidates,
    probe_of,
    screen,
    shortlisted,
)
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair


def _job(pair: Pair, images: ImageSet | None = None, **changes) -> Job:
    config = CloneConfig(**{"classes": ("9", "7"), "batch_size": 64, "screen_images": 120, "views": 1, **changes})
    return nets.job(pair.target, pair.source, images or pair.images, config)


def test_candidates_are_pairs_of_like_grids_the_likest_depths_first(pair: Pair) -> None:
    job = _job(pair)
    found = candidates(job)
    assert len(set(map(str, found))) == len(found) <= MAX_CANDIDATES
    for position in found:
        target, source = job.target.position(position.target), job.source.position(position.source)
        assert (target.name == "input") == (source.name == "input")
        assert all(a <= 2 * b and b <= 2 * a for a, b in zip(target.grid, source.grid, strict=True))
    assert all(p.target == p.source for p in found[:5])
    assert {str(p) for p in found} == {f"{p.source}->{p.target}" for p in found}


def test_many_candidates_are_limited() -> None:
    one, two = (nets.network("resnet32", 16, classes=classes, width=4) for classes in ("ab", "cd"))
    images = ImageSet(torch.zeros(16, 3, 16, 16, dtype=torch.uint8), torch.arange(16) % 4, tuple("abcd"))
    assert len(candidates(nets.job(one, two, images, CloneConfig(classes=("c",))))) == MAX_CANDIDATES


@pytest.mark.parametrize(
    ("preset", "macs", "economical"), [("fast", 0, True), ("joint", 0, False), ("fast", 10**12, False)]
)
def test_only_fast_jobs_of_expensive_networks_search_less(
    preset: str, macs: int, economical: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pnc_core.method.job.EXPENSIVE_MACS", macs)
    one, two = (nets.network("resnet32", 16, classes=classes, width=4) for classes in ("ab", "cd"))
    pixels = torch.arange(160, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16).contiguous()
    images = ImageSet(pixels, torch.arange(160) % 4, tuple("abcd"))
    job = nets.job(one, two, images, CloneConfig(classes=("c",), preset=preset))
    found = candidates(job)
    assert len(shortlisted(job, found)) == (1 if economical else CloneConfig.shortlist)
    assert len(probe_of(job)) == (27 if economical else len(job.train))
    asked = nets.job(one, two, images, CloneConfig(classes=("c",), preset=preset, shortlist=3))
    assert len(shortlisted(asked, found)) == 3


def test_the_screen_reports_usable_positions_within_the_size_limit(pair: Pair) -> None:
    reports: list[Progress] = []
    job = dataclasses.replace(_job(pair, max_size=0.7), report=reports.append)
    found = screen(job)
    trials = [r.data["trial"] for r in reports]
    assert all(t["round"] == 0 and t["parameters"] <= 0.7 * job.source.parameter_count for t in trials)
    assert {str(p) for p in found} == {f"{t['target_position']}->{t['source_position']}" for t in trials}
    assert all(0 <= t["score"] <= 1 for t in trials)


def test_positions_are_ranked_by_error_even_where_accuracy_says_otherwise(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(job: Job, insertions: list[Insertion], *_: ImageSet) -> list[tuple[Accuracy, float, float]]:
        return [(Accuracy(0.5, 0.1 * i), float(i % 3), 0.0) for i in range(len(insertions))]

    reports: list[Progress] = []
    monkeypatch.setattr("pnc_core.method.search._screen_scores", scores)
    found = screen(dataclasses.replace(_job(pair), report=reports.append))
    tried = [f"{r.data['trial']['target_position']}->{r.data['trial']['source_position']}" for r in reports]
    assert [str(p) for p in found] == sorted(tried, key=lambda position: tried.index(position) % 3)


def test_much_to_read_is_no_drawback_where_images_are_few(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    job = _job(pair)
    generator = torch.Generator().manual_seed(0)
    classes = job.old_classes + len(job.cloned)

    def rows(images: int) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
        labels = torch.arange(images) % classes
        told = torch.nn.functional.one_hot(labels, classes) + 0.4 * torch.randn(images, classes, generator=generator)
        noise = 0.3 * torch.randn(images, 120, generator=generator)
        return [(torch.cat([told, noise], 1), labels, 0.0), (told[:, :3], labels, 0.0)]

    parts = iter([rows(120), rows(400)])
    monkeypatch.setattr("pnc_core.method.search._last_features", lambda *_: next(parts))
    (wide, wide_error, _), (narrow, narrow_error, _) = _screen_scores(job, [], pair.images, pair.images)
    assert wide_error < narrow_error
    assert wide.average > narrow.average


def test_the_screen_s_error_weighs_old_and_new_images_half_each(pair: Pair) -> None:
    job = _job(pair)
    fit, held = probe_of(job).split(0.25, job.generator("screen"))
    insertion = stitch(job, Position(target="input", source="input"), fit)
    twice = held.take(torch.cat([torch.arange(len(held)), torch.nonzero(held.labels < job.old_classes).flatten()]))
    (_, error, _), (_, same, _) = (_screen_scores(job, [insertion], fit, images)[0] for images in (held, twice))
    assert same == pytest.approx(error, rel=1e-4)


def test_a_size_limit_that_no_position_keeps_is_refused(pair: Pair) -> None:
    with pytest.raises(PositionError, match="raise max_size"):
        screen(_job(pair, max_size=0.01))


def test_a_limit_on_multiply_accumulates_leaves_costly_positions_out(pair: Pair) -> None:
    reports: list[Progress] = []
    job = dataclasses.replace(_job(pair, max_size=2, max_macs=0.2), report=reports.append)
    screen(job)
    macs = [r.data["trial"]["macs"] for r in reports]
    assert 0 < max(macs) <= 0.2 * job.source.macs
    assert len(macs) < len(screen(dataclasses.replace(job, config=dataclasses.replace(job.config, max_macs=None))))


def test_a_class_with_few_images_does_not_stop_the_screen(pair: Pair) -> None:
    rare = torch.nonzero(pair.images.labels == 9).flatten()[3:]
    kept = torch.ones(len(pair.images), dtype=torch.bool).index_fill(0, rare, False)
    screen(_job(pair, pair.images.take(torch.nonzero(kept).flatten()), screen_images=60))
