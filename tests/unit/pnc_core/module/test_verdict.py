import random

import pytest

from pnc_core.module.verdict import Alternative, Answers, Verdict, difference_interval, judge, rounded, wilson


def _answers(old: tuple[int, int], new: tuple[int, int], numbers: int = 0) -> Answers:
    """`right` of `images` right answers on both sides; the first ones are the right ones."""
    sides = [[i < right for i in range(images)] for right, images in (old, new)]
    return Answers(sides[0], sides[1], numbers)


def _verdict(module: Answers, alternative: Answers, name: Alternative = "ensemble") -> Verdict:
    return judge(module, {name: alternative}, "held out")


def test_wilsons_interval_is_the_published_one() -> None:
    assert wilson(81, 263) == pytest.approx((0.2633, 0.3566), abs=2e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1191), abs=2e-4)
    assert wilson(20, 20) == pytest.approx((0.8809, 1.0), abs=2e-4)


def test_the_average_is_the_mean_of_both_sides_and_lies_in_its_interval() -> None:
    figure = _answers((30, 40), (9, 10), 7).figure()
    assert (figure.old, figure.new, figure.average, figure.numbers) == (0.75, 0.9, pytest.approx(0.825), 7)
    assert figure.low < figure.average < figure.high <= 1


def test_a_side_without_images_is_left_out() -> None:
    figure = Answers([True, False], [], 0).figure()
    assert (figure.old, figure.new, figure.average) == (0.5, None, 0.5)


def test_equal_answers_to_each_image_have_a_narrower_interval_than_unrelated_ones() -> None:
    alike = difference_interval(_answers((60, 100), (60, 100)), _answers((60, 100), (60, 100)))
    crossed = Answers([i >= 40 for i in range(100)], [i >= 40 for i in range(100)], 0)
    apart = difference_interval(_answers((60, 100), (60, 100)), crossed)
    assert alike[1] - alike[0] < 0.02 < apart[1] - apart[0]


def test_the_verdict_says_how_far_a_module_is_above_the_best_alternative() -> None:
    alternatives: dict[Alternative, Answers] = {
        "ensemble": _answers((50, 100), (50, 100)),
        "probe": _answers((40, 100), (30, 100)),
    }
    found = judge(_answers((80, 100), (80, 100)), alternatives, "cross-fitted")
    assert (found.outcome, found.best, found.images, found.fitting) == ("better", "ensemble", 200, "cross-fitted")
    assert found.difference == pytest.approx(0.3)
    assert found.text.startswith("30.0 points above the best alternative, both whole networks side by side (90 %: ")


def test_a_module_that_is_not_better_is_compared_by_size() -> None:
    module = _answers((80, 100), (80, 100), 500)
    for numbers, word in ((100, "smaller"), (500, "as large"), (900, "larger")):
        found = _verdict(module, _answers((79, 100), (81, 100), numbers), "probe")
        assert found.outcome == "equal"
        assert found.text.startswith(f"not distinguishable from a linear probe on the target, which is {word}")


def test_a_worse_module_is_called_worse() -> None:
    found = _verdict(_answers((40, 100), (40, 100)), _answers((80, 100), (80, 100)))
    assert found.outcome == "worse"
    assert found.high < 0
    assert found.text.startswith("40.0 points below the best alternative")


def test_a_manifest_holds_six_decimals() -> None:
    found = rounded(_verdict(_answers((1, 3), (2, 3)), _answers((2, 3), (1, 3))))
    assert found.figures["module"].old == 0.333333


def test_intervals_of_accuracies_and_of_differences_cover_the_truth_as_often_as_they_promise() -> None:
    generator, covered, covered_difference, runs = random.Random(0), 0, 0, 1000
    for _ in range(runs):
        sides: list[list[tuple[bool, bool]]] = []
        for p, q, images in ((0.8, 0.7, 60), (0.9, 0.6, 30)):
            both = 0.5  # share of images that both answer alike at random, so that answers are correlated
            rows = []
            for _ in range(images):
                u = generator.random()
                v = u if generator.random() < both else generator.random()
                rows.append((u < p, v < q))
            sides.append(rows)
        one, other = (Answers([r[k] for r in sides[0]], [r[k] for r in sides[1]], 0) for k in (0, 1))
        figure = one.figure()
        covered += figure.low <= 0.85 <= figure.high
        low, high = difference_interval(one, other)
        covered_difference += low <= 0.2 <= high
    assert 0.87 * runs < covered < 0.95 * runs
    assert 0.87 * runs < covered_difference < 0.95 * runs
