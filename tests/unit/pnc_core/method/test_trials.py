import dataclasses
from itertools import pairwise

import pytest
import torch

from pnc_core.config import CloneConfig, Position
from pnc_core.errors import Cancelled
from pnc_core.method.checkpoints import NoCheckpoints, State
from pnc_core.method.clone import _search
from pnc_core.method.heads.fit import Accuracy
from pnc_core.method.job import Job, Progress
from pnc_core.method.search import Trial, screen
from pnc_core.method.trials import Ranked, Step, TrialRunner, best_first, rounds
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair


def _job(pair: Pair, **changes) -> Job:
    config = CloneConfig(**{"classes": ("9", "7"), "batch_size": 64, "screen_images": 120, "views": 1, **changes})
    return nets.job(pair.target, pair.source, pair.images, config)


@pytest.mark.parametrize("count", [2, 3, 4, 8, 64])
@pytest.mark.parametrize("epochs", [1, 8, 12, 40])
def test_half_of_the_positions_goes_each_round_until_two_are_compared(count: int, epochs: int) -> None:
    plan = rounds(count, epochs)
    assert plan[0][0] == count
    assert plan[-1][0] == 2
    assert all(after == (before + 1) // 2 for (before, _), (after, _) in pairwise(plan))
    assert all(e >= 1 for _, e in plan)
    assert sum(e for _, e in plan) <= max(len(plan), epochs // 2)


def test_without_epochs_one_round_decides() -> None:
    assert rounds(8, 0) == [(8, 0)]


def test_a_fixed_position_is_not_searched_for(pair: Pair) -> None:
    reports: list[Progress] = []
    position = Position(target="blocks.1", source="blocks.2")
    job = dataclasses.replace(_job(pair, position=position), report=reports.append)
    assert _search(job) == (position, 0)
    assert not reports


def test_a_search_reports_every_trial_and_ends_with_the_better_of_two(pair: Pair) -> None:
    reports: list[Progress] = []
    position, played = _search(dataclasses.replace(_job(pair, epochs=4, shortlist=4), report=reports.append))
    trials = [Trial(**r.data["trial"]) for r in reports if "trial" in r.data]
    counts = [sum(t.round == number for t in trials) for number in range(played + 1)]
    assert counts[1:] == [4, 2]
    assert counts[0] > 4
    assert str(position) in {f"{t.target_position}->{t.source_position}" for t in trials if t.round == played}
    assert all(t.macs > 0 and t.parameters > 0 and t.seconds > 0 for t in trials)
    done = [r.done for r in reports]
    assert done == sorted(done)


def test_a_search_can_be_cancelled(pair: Pair) -> None:
    calls = iter(range(1000))
    job = dataclasses.replace(_job(pair), cancelled=lambda: next(calls) >= 5)
    with pytest.raises(Cancelled):
        _search(job)


def _ranked(loss: float, parameters: int) -> Ranked:
    trial = Trial("a", "b", 1, 1.0, 1.0, Accuracy(1, 1).average, parameters, 1000, 0.0)
    losses = loss + 0.1 * torch.randn(100, generator=torch.Generator().manual_seed(parameters))
    return Ranked(Position(target="a", source="b"), trial, losses)


def test_between_equals_the_smaller_module_goes_first() -> None:
    large, small, bad = _ranked(1.0, 200), _ranked(1.001, 100), _ranked(2.0, 10)
    assert best_first([bad, large, small]) == [small, large, bad]


def test_a_step_is_named_by_its_text() -> None:
    step = Step(2, 3, Position(target="layer1.0", source="blocks.1"))
    assert Step.parse(str(step)) == step
    assert step.before.round == 1


def _same(one: State, other: State) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )


def test_a_trial_does_not_depend_on_its_company(pair: Pair) -> None:
    job = _job(pair, epochs=8)
    steps = [str(Step(1, 1, position)) for position in screen(job)[:3]]
    together = TrialRunner(job).work(steps)
    alone = [TrialRunner(_job(pair, epochs=8)).work([step])[0] for step in reversed(steps)][::-1]
    assert all(_same(one, other) for one, other in zip(together, alone, strict=True))
    assert not _same(together[0], together[1])


class _Remembered(NoCheckpoints):
    """State of a trial that another process has run."""

    def __init__(self, step: str, state: State) -> None:
        self._step, self._state = step, state

    def load(self, step: str) -> State | None:
        return self._state if step == self._step else None


def test_positions_are_compared_by_images_and_not_by_views(pair: Pair) -> None:
    job = _job(pair)
    (state,) = TrialRunner(job).work([str(Step(1, 0, screen(job)[0]))])
    assert state.tensors["losses"].shape == job.validation.sample(120, job.generator("judge")).labels.shape


def test_the_second_round_goes_on_where_another_process_has_ended_the_first(pair: Pair) -> None:
    job = _job(pair, epochs=8)
    first = Step(1, 2, screen(job)[0])
    second = Step(2, 2, first.position)
    runner = TrialRunner(job)
    known = _Remembered(str(first), runner.work([str(first)])[0])
    here = runner.work([str(second)])[0]
    elsewhere = TrialRunner(dataclasses.replace(_job(pair, epochs=8), checkpoints=known)).work([str(second)])[0]
    from_scratch = TrialRunner(_job(pair, epochs=8)).work([str(second)])[0]
    assert _same(here, elsewhere)
    assert not _same(here, from_scratch)
