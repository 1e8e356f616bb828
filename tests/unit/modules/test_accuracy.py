"""A module's accuracy stands beside its baselines', where its job has judged them."""

from typing import Any

import pytest

from app.modules.accuracy import accuracy_section
from app.modules.tables import ModuleRow

SIZES = {"source": 1000, "module": 400, "adapter": 50, "head": 30}
WORTH = {
    "alone": {"old": 1.0, "new": 0.0, "average": 0.5},
    "ensemble": {"old": 0.9, "new": 0.8, "average": 0.85},
}


def module(evidence: dict[str, Any] | None) -> ModuleRow:
    shares = {"old": 0.99, "new": 0.97, "average": 0.98}
    return ModuleRow(manifest={"validation": shares, "sizes": SIZES}, evidence=evidence)


def test_the_module_stands_beside_the_target_and_both_networks() -> None:
    shown = accuracy_section(module({"worth": WORTH}), "Worth")
    rows = shown.split("<tbody>")[1].split("</tr>")
    for row, texts in zip(
        rows,
        (
            ("The target alone", "100.0 %", "0.0 %", "50.0 %", ">0<"),
            ("Both whole networks", "90.0 %", "80.0 %", "85.0 %", "1 k"),
            ("With the module", "99.0 %", "97.0 %", "98.0 %", "480"),
        ),
        strict=False,
    ):
        assert all(text in row for text in texts), row


@pytest.mark.parametrize("evidence", [None, {}, {"confusion": {}}])
def test_a_module_that_was_not_judged_has_its_bars_alone(evidence: dict[str, Any] | None) -> None:
    shown = accuracy_section(module(evidence), "Worth")
    assert "98.0 %" in shown
    assert "<table" not in shown


def test_a_side_without_images_is_a_dash() -> None:
    without_old = {"alone": {"new": 0.0}, "ensemble": {"new": 0.8, "average": 0.8}}
    shown = accuracy_section(module({"worth": without_old}), "Worth")
    assert shown.count("—") == 3  # two of the target alone, one of both whole networks
