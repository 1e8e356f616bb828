"""The intervals of cross-fitted figures contain the accuracy on new images as often as they promise."""

from statistics import fmean

import pytest
import torch

from pnc_core.config import CloneConfig
from pnc_core.images import ImageSet
from pnc_core.method.heads.fit import HeadInputs, accuracy, head_logits
from pnc_core.method.heads.folds import Candidate, cross_fit, folds_of
from pnc_core.method.heads.inputs import head_inputs, last_taps
from pnc_core.method.insert import whole_source
from pnc_core.module.head import LAST
from pnc_core.module.verdict import Answers
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

OLD = 5


@pytest.fixture(scope="module")
def rows(pair: Pair) -> tuple[ImageSet, HeadInputs]:
    """Images that neither network was trained on, and what heads on the whole source's last taps read of them."""
    images = pair.test.only((*"01234", "9", "7"))
    job = nets.job(pair.target, pair.source, images, CloneConfig(classes=("9", "7")))
    whole = whole_source(job)
    assert whole is not None
    return images, last_taps(job, whole, head_inputs(job, whole, images, [1], 0)[0], 1, LAST)


def _draw(images: ImageSet, count: int, generator: torch.Generator) -> torch.Tensor:
    members = (torch.nonzero(images.labels == label).flatten() for label in range(len(images.classes)))
    return torch.cat([row[torch.randperm(len(row), generator=generator)[:count]] for row in members])


@pytest.mark.slow
@pytest.mark.parametrize(("count", "bias"), [(3, 0.03)])
def test_two_hundred_jobs_are_covered(rows: tuple[ImageSet, HeadInputs], count: int, bias: float) -> None:
    images, inputs = rows
    generator, covered, gaps = torch.Generator().manual_seed(count), 0, []
    for _ in range(200):
        taken = _draw(images, count, generator)
        others = torch.ones(len(images), dtype=torch.bool)
        others[taken] = False
        job, test = inputs.take(taken), inputs.take(others)
        candidates = [Candidate(kind, 0.1, 1, job, LAST) for kind in ("affine", "joint")]
        fitted = cross_fit(candidates, torch.arange(len(taken)), folds_of(images.take(taken), generator))
        assert fitted.logits is not None
        right, is_new = fitted.logits.argmax(1) == job.labels, job.labels >= OLD
        figure = Answers(right[~is_new].tolist(), right[is_new].tolist(), 0).figure()
        found = accuracy(head_logits(fitted.head, test), test.labels, OLD).average
        covered += figure.low <= found <= figure.high
        gaps.append(figure.average - found)
    assert 0.85 * 200 <= covered <= 0.99 * 200  # near 100 % accuracy Wilson's interval covers more than it promises
    assert abs(fmean(gaps)) < bias
