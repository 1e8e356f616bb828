"""A validation forecasts accuracy and time of a job if it is asked to."""

import re
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from app.cli import app
from app.demo import Material
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


def test_the_better_of_two_sources_is_recommended(
    client: Client, dataset: Dataset, material: Material, tmp_path: Path
) -> None:
    network, spec = material.source
    poor = {name: torch.randn_like(t) if t.ndim > 1 else t for name, t in network.state_dict().items()}
    save_file(poor, tmp_path / "poor.safetensors")
    client.models.push("digits-poor", spec, tmp_path / "poor.safetensors").wait()
    with Client(client.url, timeout=250) as patient:
        found = patient.jobs.recommend("digits-low", CONFIG.classes, dataset.id)
    assert found.best == "digits-high@1"
    best, poor_one = (next(s for s in found.sources if s.source == f"digits-{n}@1") for n in ("high", "poor"))
    assert best.advice is not None
    assert poor_one.advice is not None
    assert best.advice.accuracy > poor_one.advice.accuracy + 0.05
    assert "digits-high@1" in found.text
    told = CliRunner().invoke(app, ["classes", "7", "--url", client.url])
    assert told.exit_code == 0, told.output
    assert "digits-high@1" in told.output
    client.models.archive("digits-poor")
