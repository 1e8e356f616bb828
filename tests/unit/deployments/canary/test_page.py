"""What a deployment's page says about a canary."""

from app.deployments.canary.page import described
from app.deployments.tables import CanaryModuleRow, CanaryRevisionRow, CanaryRow
from app.deployments.tried import tried
from app.modules.tables import ModuleRow


def canary(**counts: float) -> CanaryRevisionRow:
    zeros = dict.fromkeys(("main_requests", "canary_requests", "agreed", "differed", "dropped", "failed"), 0)
    member = CanaryModuleRow(module=ModuleRow(classes=["7", "<8>"]))
    row = CanaryRow(**{**zeros, "logit_difference": 0.0, **counts}, members=[member])
    return CanaryRevisionRow(mode="shadow", share=0.125, canary=row)


def test_a_deployment_without_a_canary_says_so() -> None:
    assert "No canary runs" in described(None)


def test_a_canary_that_has_compared_nothing_shows_no_difference() -> None:
    text = described(canary(main_requests=1200))
    assert "12.5 % of the requests" in text
    assert "1,200 by the attached modules, 0 by the canary" in text
    assert "no image compared yet" in text
    assert "&lt;8&gt;" in text
    assert "Old logits" not in text
    assert "Not compared" not in text


def test_its_comparisons_are_shown_in_numbers() -> None:
    text = described(canary(agreed=30, differed=10, logit_difference=10.0, dropped=2, failed=1))
    assert "30 images agree, 10 differ (25.0 %)" in text
    assert "0.25, mean" in text
    assert "2 requests while serving was busy, 1 failed" in text


def test_an_image_that_was_tried_shows_one_column_for_each_set() -> None:
    def answer(name: str, modules: int) -> dict[str, object]:
        return {"classes": [{"name": name, "probability": 1.0}], "modules": [{}] * modules, "generation": 3}

    answers = [answer("2", 0), answer("3", 1), answer("7", 2)]
    assert str(tried(b"", answers[:2], 0.01)).count("<h3>") == 2
    shown = tried(b"", answers, 0.01)
    assert "With 1 module: <strong>3</strong>" in shown
    assert "Canary: <strong>7</strong>" in shown
    assert "no such deployment" in tried(b"", [answers[0], {"detail": "no such deployment"}], 0.01)
