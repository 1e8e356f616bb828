"""A validation forecasts accuracy and time of a job if it is asked to."""

import re
from dataclasses import replace

from typer.testing import CliRunner

from app.cli import app
from pnc_client import Client, Dataset
from pnc_core.config import CloneConfig

CONFIG = CloneConfig(classes=("7", "8", "9"), preset="fast")


def test_a_validation_forecasts_accuracy_and_time(client: Client, dataset: Dataset) -> None:
    assert client.jobs.validate("digits-low", "digits-high", dataset.id, CONFIG).advice is None
    verdict = client.jobs.validate("digits-low", "digits-high", dataset.id, CONFIG, advice=True)
    assert (verdict.valid, verdict.no_advice) == (True, None)
    found = verdict.advice
    assert found is not None
    assert 0.8 < found.low <= found.accuracy <= found.high <= 1
    assert found.accuracy <= found.more_accuracy
    assert 0 < found.seconds < 600
    assert found.images > 100
    assert "%" in found.text


def test_the_command_shows_the_forecast(client: Client, dataset: Dataset) -> None:
    arguments = [
        "jobs",
        "validate",
        "digits-low",
        "digits-high",
        dataset.id,
        "--url",
        client.url,
        "--set",
        "preset=fast",
    ]
    classes = [word for name in CONFIG.classes for word in ("--class", name)]
    plain, told = (CliRunner().invoke(app, [*arguments, *classes, *more]) for more in ((), ("--advice",)))
    assert plain.exit_code == told.exit_code == 0, told.output
    assert "expected accuracy" not in plain.output
    assert re.search(r"expected accuracy +\d\d\.\d % \(\d\d\.\d to [\d.]+; old", told.output)
    assert re.search(r"time +about \d+ s", told.output)


def test_a_job_that_cannot_be_foretold_says_why(client: Client, dataset: Dataset) -> None:
    verdict = client.jobs.validate("digits-low", "digits-high", dataset.id, replace(CONFIG, labels=False), advice=True)
    assert verdict.valid
    assert verdict.advice is None
    assert verdict.no_advice is not None
    assert "expected labelled images" in verdict.no_advice


def test_a_job_with_problems_is_not_foretold(client: Client, dataset: Dataset) -> None:
    verdict = client.jobs.validate(
        "digits-low", "digits-high", dataset.id, replace(CONFIG, classes=("0",)), advice=True
    )
    assert not verdict.valid
    assert (verdict.advice, verdict.no_advice) == (None, None)
