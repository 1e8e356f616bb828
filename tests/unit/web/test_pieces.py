"""Pictures, words and numbers that the pages are made of."""

import io
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
import safetensors.torch
import torch
from markupsafe import Markup

from app.deployments.load import Load
from app.jobs import page as job
from app.jobs.states import TRANSITIONS
from app.models.layer_table import Mask, layers, masks
from app.web import drawing, html
from pnc_client import pictures
from pnc_core.errors import TensorFileError


class Tried(NamedTuple):
    target_position: str
    source_position: str
    round: int
    score: float
    parameters: int


TRIALS = [
    Tried("a", "b", 0, 0.5, 100),
    Tried("<c>", "c", 0, 0.9, 300),
    Tried("a", "b", 1, 0.8, 200),
    Tried("a", "b", 2, 0.7, 250),
]


def parsed(picture: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{picture}</div>")


def test_the_plot_has_every_trial_and_the_chosen_one() -> None:
    picture = parsed(drawing.position_plot(TRIALS, ended=True))
    assert len(list(picture.iter("circle"))) == 2
    assert len(list(picture.iter("rect"))) == 1
    (chosen,) = [t for t in picture.iter("text") if t.attrib.get("class") == "chosen"]
    assert "0.700" in "".join(chosen.itertext())  # of the last round, though another scored higher before
    joints = [p.attrib["d"] for p in picture.iter("path") if p.attrib["class"] == "joint"]
    assert [j.count("L") for j in joints] == [2]


def test_a_position_of_several_rounds_is_counted_once() -> None:
    assert 'aria-label="2 positions tried' in drawing.position_plot(TRIALS, ended=True)


def test_nothing_is_chosen_while_the_job_runs() -> None:
    assert 'class="chosen"' not in drawing.position_plot(TRIALS, ended=False)


@pytest.mark.parametrize("trials", [TRIALS[:1], [TRIALS[0], TRIALS[0]]])
def test_a_plot_of_equal_trials_stays_inside_its_frame(trials: list[Tried]) -> None:
    for circle in parsed(drawing.position_plot(trials, ended=False)).iter("circle"):
        assert pictures.LEFT <= float(circle.attrib["cx"]) <= pictures.WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= pictures.HEIGHT


def test_a_mask_fills_what_was_kept() -> None:
    strips = parsed(drawing.mask_strips([Mask("conv1", 4, (0, 3)), Mask("wide", 1000, tuple(range(500)))]))
    narrow, wide = strips.iter("svg")
    assert [r.attrib["x"] for r in narrow.iter("rect")] == ["0", "3"]
    assert len(list(wide.iter("rect"))) == 48  # half of 96 cells
    assert "500 of 1000" in wide.attrib["aria-label"]


def test_layers_and_masks_are_read_from_headers(tmp_path) -> None:
    source = {"a.weight": torch.zeros(4, 3, 3, 3), "a.bias": torch.zeros(4), "b.weight": torch.zeros(2, 4)}
    safetensors.torch.save_file(source, tmp_path / "source")
    kept = {"kept.b": torch.tensor([1], dtype=torch.int32), "kept.a": torch.tensor([0, 2], dtype=torch.int32)}
    safetensors.torch.save_file({**kept, "other": torch.zeros(1)}, tmp_path / "bundle")
    with (tmp_path / "source").open("rb") as file:
        found = {layer.name: (layer.channels, layer.numbers) for layer in layers(file)}
    assert found == {"a": (4, 112), "b": (2, 8)}
    with (tmp_path / "bundle").open("rb") as bundle, (tmp_path / "source").open("rb") as file:
        kept = {mask.group: (mask.width, mask.kept) for mask in masks(bundle, file)}
    assert kept == {"a": (4, (0, 2)), "b": (2, (1,))}


@pytest.mark.parametrize("content", [b"\xff" * 100, (4).to_bytes(8, "little") + b"nope"])
def test_what_is_no_safetensors_file_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(TensorFileError):
        layers(io.BytesIO(content))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (102_821, "103 k"),
        (1_810_000, "1.81 M"),
        (None, "—"),
        (3e9, "3 G"),
        (999_499, "999 k"),
        (999_700, "1 M"),
        (999.6, "1 k"),
        (999.9e15, "1,000 P"),
    ],
)
def test_large_numbers_are_short(number: float | None, text: str) -> None:
    assert html.count(number) == text


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [(12, "12 B"), (37_400, "37.4 kB"), (8 * 1024**3, "8.59 GB"), (999_999, "1 MB"), (5 * 10**15, "5,000 TB")],
)
def test_sizes(bytes_: int, text: str) -> None:
    assert html.size(bytes_) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "just now"), (42, "42 s ago"), (125, "2 min ago"), (90_000, "1 d ago")]
)
def test_times(seconds: float, text: str) -> None:
    shown = html.ago(datetime.now(UTC) - timedelta(seconds=seconds))
    assert text in shown


def test_every_state_has_a_sign() -> None:
    for state in TRANSITIONS:
        assert 'aria-hidden="true">●' not in html.badge(state) or "live" in html.badge(state)


@pytest.mark.parametrize("state", TRANSITIONS)
def test_only_what_the_zoo_allows_is_offered(state: str) -> None:
    offered = job.verbs(state)
    assert ("cancel" in offered) == bool({"cancelling", "cancelled"} & TRANSITIONS[state] and state != "cancelling")
    assert offered <= {"cancel", "pause", "resume", "retry"}


METRICS = """# TYPE pnc_requests counter
pnc_requests_total{deployment="digits",generation="1",outcome="ok"} %d
pnc_requests_total{deployment="other",generation="1",outcome="ok"} 1000
# TYPE pnc_queue_seconds histogram
pnc_queue_seconds_sum %f
pnc_queue_seconds_count %d
# TYPE pnc_compute_seconds histogram
pnc_compute_seconds_sum %f
pnc_compute_seconds_count %d
"""


def test_rate_and_latency_come_from_two_readings() -> None:
    load = Load("digits")
    assert load.tiles().count("—") == 3
    load.read(METRICS % (10, 0.01, 10, 0.03, 10), at=5.0)
    load.read(METRICS % (30, 0.02, 20, 0.06, 20), at=9.0)
    tiles = load.tiles()
    assert "<b>30</b>" in tiles
    assert "<b>5.0</b>" in tiles
    assert "<b>4.0 ms</b>" in tiles
    load.read("", at=10.0)
    assert load.tiles().count("—") == 3
