"""The chart of a deployment's last hour, from the answer of the serving process."""

import json
import re
from xml.etree import ElementTree

import pytest

from app.deployments.history import Hour, chart


def hour(*rows: tuple[int, int, int, float | None, float | None]) -> Hour:
    names = ("ago", "answered", "failed", "p50", "p95")
    body = {"seconds": 30, "intervals": 120, "rows": [dict(zip(names, row, strict=True)) for row in rows]}
    found = Hour.read(200, json.dumps(body).encode())
    assert found is not None
    return found


def test_the_chart_says_in_words_what_it_draws() -> None:
    drawn = str(chart(hour((3, 30, 0, 0.004, 0.01), (2, 290, 10, 0.005, 0.02), (0, 60, 0, 0.004, 0.012))))
    assert "Last hour: 380 answers, 10 failures, at most 10 requests a second; newest latency 4 ms (median)" in drawn
    svg = re.search("<svg.*</svg>", drawn)
    assert svg is not None
    picture = ElementTree.fromstring(svg[0])
    bars = list(picture.iter("rect"))
    assert len(bars) == 3
    assert max(float(one.attrib["height"]) for one in bars) == 72
    places = [float(one.attrib["x"]) for one in bars]
    assert places == sorted(places)
    median, slow = [one.attrib["d"] for one in picture.iter("path") if "stroke-dasharray" in one.attrib]
    assert [len(re.findall(letter, median)) for letter in "ML"] == [2, 1]  # the interval without requests is a gap
    assert "nan" not in median + slow
    assert len(list(picture.iter("circle"))) == 2  # the newest interval stands alone, in both lines


def test_requests_without_answers_have_no_latency() -> None:
    drawn = str(chart(hour((0, 0, 3, None, None))))
    assert "Last hour: 0 answers, 3 failures, at most 0.1 requests a second" in drawn


def test_without_requests_there_is_a_sentence() -> None:
    assert "No request came in the last hour." in chart(hour())
    assert "does not answer" in chart(None)


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, b"{}"), (200, b"not JSON"), (200, b"[]"), (200, b"{}"), (200, b'{"rows": [{}], "seconds": 1}')],
)
def test_an_answer_that_is_no_history_is_none(status: int, body: bytes) -> None:
    assert Hour.read(status, body) is None
