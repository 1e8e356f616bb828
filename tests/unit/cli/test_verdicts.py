"""Commands compare a module with its alternatives."""

from dataclasses import asdict

from app.cli.verdicts import advised, described
from pnc_core.method.advice import Advice, Point
from pnc_core.module.verdict import Answers, Verdict, judge


def _verdict() -> Verdict:
    module, alternative = Answers([True] * 10, [True] * 10, 1234), Answers([True] * 10, [False] * 10, 0)
    return judge(module, {"alone": alternative}, "cross-fitted")


def test_the_verdict_comes_first_and_each_figure_has_interval_sides_and_size() -> None:
    shown = described(asdict(_verdict()))
    assert next(iter(shown)) == "verdict"
    assert str(shown["verdict"]).startswith("50.0 points above the best alternative, the target alone (90 %:")
    assert shown["with the module"] == "100.0 % (84.9 to 100.0; old 100.0, new 100.0), 1,234 numbers"
    assert shown["target alone"] == "50.0 % (39.4 to 60.6; old 100.0, new 0.0), 0 numbers"
    assert shown["measured on"] == "20 images, cross-fitted"
    assert "linear probe" not in shown


def test_a_module_without_a_verdict_has_no_line() -> None:
    assert described(None) == {}


def test_advice_names_curve_forecast_and_time() -> None:
    verdict = _verdict()
    curve = (Point(2.5, verdict.figures["alone"]), Point(5, verdict.figures["module"]))
    shown = advised(asdict(Advice(verdict, curve, (20.0, 0.981), 34.4)))
    assert (
        shown["learning curve"]
        == "2.5 images a class: 50.0 % (39.4 to 60.6); 5 images a class: 100.0 % (84.9 to 100.0)"
    )
    assert shown["more images"] == "about 98 % with 20 a class"
    assert shown["time"] == "about 34 s"
