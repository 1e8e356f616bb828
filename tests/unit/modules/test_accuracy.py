"""A module's accuracy stands beside its alternatives', with a verdict, where its job has compared them."""

from dataclasses import asdict
from typing import Any

import pytest

from app.modules.accuracy import accuracy_section
from app.modules.tables import ModuleRow
from pnc_core.module.verdict import Alternative, Answers, judge

ALL, NONE = [True] * 10, [False] * 10


def module(verdict: dict[str, Any] | None) -> ModuleRow:
    shares = {"old": 0.99, "new": 0.97, "average": 0.98}
    manifest = {"validation": shares, "sizes": {"source": 1000}}
    return ModuleRow(manifest=manifest if verdict is None else {**manifest, "verdict": verdict})


def verdict(old: list[bool], alternatives: dict[Alternative, Answers]) -> dict[str, Any]:
    return asdict(judge(Answers(old, ALL, 480), alternatives, "held out"))


def test_the_module_stands_beside_its_alternatives_with_intervals_and_sizes() -> None:
    alternatives: dict[Alternative, Answers] = {
        "alone": Answers(ALL, NONE, 0),
        "ensemble": Answers([True] * 9 + [False], [True] * 8 + [False] * 2, 1000),
        "probe": Answers([True] * 6 + [False] * 4, [True] * 5 + [False] * 5, 70),
    }
    shown = accuracy_section(module(verdict(ALL, alternatives)), "Worth")
    rows = shown.split("<tbody>")[1].split("</tr>")
    for row, texts in zip(
        rows,
        (
            ("The target alone", "100.0 %", "0.0 %", "50.0 %", "39.4 to 60.6", ">0<"),
            ("Both whole networks", "90.0 %", "80.0 %", "85.0 %", "1 k"),
            ("A linear probe on the target", "60.0 %", "50.0 %", "55.0 %", "70"),
            ("With the module", "100.0 %", "480"),
        ),
        strict=False,
    ):
        assert all(text in row for text in texts), row
    assert "20 images" in shown
    assert "which is larger: +15.0 points" in shown
    assert 'class="verdict equal"' in shown


def test_a_better_module_is_called_better() -> None:
    shown = accuracy_section(module(verdict(ALL, {"alone": Answers(ALL, NONE, 0)})), "Worth")
    assert 'class="verdict better"' in shown
    assert "50.0 points above the best alternative, the target alone" in shown


def test_a_module_that_was_not_compared_has_its_bars_alone() -> None:
    shown = accuracy_section(module(None), "Worth")
    assert "98.0 %" in shown
    assert "<table" not in shown


@pytest.mark.parametrize("alternative", ["alone", "ensemble"])
def test_a_side_without_images_is_a_dash(alternative: Alternative) -> None:
    shown = accuracy_section(module(verdict([], {alternative: Answers([], ALL, 0)})), "Worth")
    assert shown.count("—") == 2  # the alternative and the module have no old images
