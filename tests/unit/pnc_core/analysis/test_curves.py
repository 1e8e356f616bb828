import dataclasses

import pytest
import torch

from pnc_core.analysis import curves
from pnc_core.analysis.curves import MaskingPoint, masking_curve, position_curve
from pnc_core.analysis.evaluation import judge
from pnc_core.config import CloneConfig, Position
from pnc_core.errors import ConfigError
from pnc_core.identity import fingerprint
from pnc_core.method.heads.fit import fit_head, head_logits
from pnc_core.method.heads.inputs import head_inputs
from pnc_core.method.insert import Insertion, stitch
from pnc_core.method.job import Job
from pnc_core.method.learn import match_features
from pnc_core.method.search import Trial
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

HERE = Position(target="blocks.0", source="blocks.0")
CONFIG = CloneConfig(classes=("9", "7"), position=HERE, views=1, batch_size=64)


@pytest.fixture(scope="module")
def curve(pair: Pair) -> list[MaskingPoint]:
    return masking_curve(
        pair.target, pair.source, pair.images, CONFIG, test=pair.test, shares=(1.0, 0.5, 0.1), seeds=(0, 1), epochs=0
    )


def _mean(curve: list[MaskingPoint], localizer: str, keep: float) -> float:
    rows = [p.average for p in curve if (p.localizer, p.keep) == (localizer, keep)]
    assert len(rows) == 2
    return sum(rows) / len(rows)


def test_with_everything_kept_it_is_the_uncut_tail(pair: Pair, curve: list[MaskingPoint]) -> None:
    job = nets.job(pair.target, pair.source, pair.images, CONFIG)
    whole = stitch(job, HERE, job.train)
    (train,) = head_inputs(job, whole, job.train, (1,), 1)
    (test,) = head_inputs(job, whole, pair.test.only((*"01234", "9", "7")), (1,), 0)
    head = fit_head("router", train)
    wanted = judge(head_logits(head, test), test.old, test.labels)
    numbers = whole.whole + whole.trained_parameter_count + sum(p.numel() for p in head.parameters())
    for localizer in ("log-odds", "random"):
        point = next(p for p in curve if (p.seed, p.localizer, p.keep) == (0, localizer, 1.0))
        assert (point.old, point.new, point.locality) == (wanted.old, wanted.new, wanted.locality)
        own = test.own.argmax(1) + 5 == test.labels
        assert point.own == pytest.approx(float(own[test.labels >= 5].double().mean()))
        assert (point.numbers, point.size) == (numbers, numbers / job.source.parameter_count)


def test_there_is_a_point_for_every_seed_share_and_localizer(curve: list[MaskingPoint]) -> None:
    expected = [(s, k, name) for s in (0, 1) for k in (1.0, 0.5, 0.1) for name in ("log-odds", "random")]
    assert [(p.seed, p.keep, p.localizer) for p in curve] == expected
    assert all(p.average == pytest.approx((p.old + p.new) / 2) for p in curve)


def test_modules_get_smaller_and_in_the_end_worse(curve: list[MaskingPoint]) -> None:
    for localizer in ("log-odds", "random"):
        sizes = [p.size for p in curve if (p.seed, p.localizer) == (0, localizer)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] < 0.2 * sizes[0]
    assert _mean(curve, "random", 0.1) < _mean(curve, "random", 1.0) - 0.1


def test_half_of_the_tail_chosen_by_localization_is_better_than_a_random_half(curve: list[MaskingPoint]) -> None:
    assert _mean(curve, "log-odds", 0.5) > _mean(curve, "random", 0.5) + 0.05


def test_the_configured_localizer_is_shown_beside_the_control(pair: Pair) -> None:
    def shown(localizer: str) -> list[str]:
        config = dataclasses.replace(CONFIG, localizer=localizer)
        points = masking_curve(pair.target, pair.source, pair.images, config, shares=(0.5,), epochs=0)
        return [p.localizer for p in points]

    assert shown("magnitude") == ["magnitude", "random"]
    assert shown("random") == ["random"]


def test_points_do_not_depend_on_what_was_made_before_them(pair: Pair) -> None:
    def _curve(shares: tuple[float, ...], localizers: tuple[str, ...]) -> list[MaskingPoint]:
        return masking_curve(
            pair.target, pair.source, pair.images, CONFIG, shares=shares, localizers=localizers, epochs=1
        )

    together, alone = _curve((0.5, 0.3), ("fisher", "random")), _curve((0.3,), ("random",))
    assert together[-1] == alone[0]


def test_points_can_be_matched_after_the_cut(pair: Pair, fingerprints: tuple[str, str], monkeypatch) -> None:
    matched: list[tuple[int, bool]] = []

    def spy(job: Job, insertion: Insertion, epochs: int, *rest: object) -> None:
        before = insertion.adapter.weight.detach().clone()
        match_features(job, insertion, epochs, *rest)
        matched.append((epochs, not torch.equal(before, insertion.adapter.weight)))

    monkeypatch.setattr(curves, "match_features", spy)
    steps: list[float] = []

    def _point(epochs: int) -> MaskingPoint:
        return masking_curve(
            pair.target,
            pair.source,
            pair.images,
            CONFIG,
            shares=(0.3,),
            localizers=("random",),
            epochs=epochs,
            step=lambda done, message: steps.append(done),
        )[0]

    plain, learned = _point(0), _point(3)
    assert matched[-1] == (3, True)
    assert learned.numbers == plain.numbers
    assert steps == [1.0, 1.0]
    assert (fingerprint(pair.target[0]), fingerprint(pair.source[0])) == fingerprints


def test_without_a_fixed_position_there_is_no_curve(pair: Pair) -> None:
    with pytest.raises(ConfigError, match="position"):
        masking_curve(pair.target, pair.source, pair.images, dataclasses.replace(CONFIG, position=None))


def _trial(name: str, round_: int, score: float, parameters: int) -> Trial:
    return Trial(
        target_position=name,
        source_position=name,
        round=round_,
        old=score,
        new=score,
        score=score,
        parameters=parameters,
        macs=0,
        seconds=1.5,
    )


TRIALS = [
    _trial("a", 0, 0.95, 900),
    _trial("b", 0, 0.94, 500),
    _trial("c", 0, 0.90, 600),
    _trial("d", 0, 0.70, 100),
    _trial("a", 1, 0.97, 910),
    _trial("b", 1, 0.96, 510),
    _trial("b", 2, 0.98, 510),
]


@pytest.mark.parametrize("order", [1, -1])
def test_the_position_curve_has_the_front_and_the_winner(order: int) -> None:
    found = position_curve(TRIALS[::order])
    assert [p.target_position for p in found] == ["d", "b", "c", "a"]
    assert [p.front for p in found] == [True, True, False, True]
    assert [p.winner for p in found] == [False, True, False, False]
    assert [p.screened for p in found] == [0.70, 0.94, 0.90, 0.95]
    assert [p.trained for p in found] == [None, 0.98, None, 0.97]
    assert [p.screened_parameters for p in found] == [100, 500, 600, 900]
    assert [p.parameters for p in found] == [100, 510, 600, 910]
    assert [p.seconds for p in found] == [1.5, 4.5, 1.5, 3.0]


def test_the_front_compares_what_the_screen_saw() -> None:
    grown = [_trial("a", 0, 0.9, 100), _trial("b", 0, 0.9, 110), _trial("a", 1, 0.9, 200)]
    assert {p.target_position: p.front for p in position_curve(grown)} == {"a": True, "b": False}


def test_a_fixed_position_wins_without_a_screen() -> None:
    (found,) = position_curve([_trial("a", 1, 0.9, 100)])
    assert (found.screened, found.trained, found.winner, found.front) == (None, 0.9, True, True)


def test_a_screen_alone_has_no_winner() -> None:
    assert not any(p.winner for p in position_curve(TRIALS[:4]))


def test_equal_points_are_both_on_the_front() -> None:
    found = position_curve([_trial("a", 0, 0.9, 100), _trial("b", 0, 0.9, 100), _trial("c", 0, 0.9, 101)])
    assert [p.front for p in found] == [True, True, False]


def test_no_trials_no_points() -> None:
    assert position_curve([]) == []
