"""The history of a deployment is exact in its counts, close in its latencies, and bounded."""

import asyncio
import random

import httpx
import numpy as np
import pytest

from app.serving import history
from app.serving.history import INTERVAL_SECONDS, INTERVALS, MOST_DEPLOYMENTS, History
from tests.unit.serving.world import NAME, World


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The running interval, to be moved on by the test."""
    now = [1000]
    monkeypatch.setattr(history, "_now", lambda: now[0])
    return now


def test_quantiles_are_exact_to_half_a_bin(clock: list[int]) -> None:
    made, chance = History(), random.Random(0)
    seconds = [chance.lognormvariate(-4, 1) for _ in range(5000)]
    for one in seconds:
        made.note("a", one, answered=True)
    (row,) = made.read("a")["rows"]
    assert row["answered"] == 5000
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        exact = np.quantile(seconds, share, method="inverted_cdf")
        assert row[name] == pytest.approx(exact, rel=2 ** (0.5 / history.BINS_PER_DOUBLING) - 1 + 1e-6)


def test_odd_latencies_fall_into_the_outer_bins(clock: list[int]) -> None:
    made = History()
    for seconds in (-1.0, 0.0, 1e9):
        made.note("a", seconds, answered=True)
    assert made.read("a")["rows"][0]["answered"] == 3


def test_an_hour_is_kept_and_older_intervals_are_not(clock: list[int]) -> None:
    made = History()
    for _ in range(INTERVALS + 10):
        made.note("a", 0.01, answered=True)
        clock[0] += 1
    made.note("a", 0.01, answered=False)
    rows = made.read("a")["rows"]
    assert len(rows) == INTERVALS
    assert [row["ago"] for row in rows] == list(range(INTERVALS - 1, -1, -1))
    assert (rows[-1]["answered"], rows[-1]["failed"], rows[-1]["p50"]) == (0, 1, None)
    clock[0] += INTERVALS
    assert made.read("a")["rows"] == []
    assert INTERVALS * INTERVAL_SECONDS == 3600


def test_the_number_of_rings_is_bounded(clock: list[int]) -> None:
    made = History()
    for number in range(MOST_DEPLOYMENTS + 5):
        made.note(str(number), 0.01, answered=True)
    assert len(made._rings) == MOST_DEPLOYMENTS
    assert made.read("0")["rows"] == []


def test_the_serving_process_tells_the_history_of_a_deployment(here: World, url: str) -> None:
    with httpx.Client(base_url=f"http://{url}", timeout=30) as http:
        before = sum(row["answered"] for row in http.get(f"/internal/history/{NAME}").json()["rows"])
        raw = {"Inference-Header-Content-Length": "0"}
        for _ in range(3):
            assert http.post(f"/v2/models/{NAME}/infer", content=bytes(64), headers=raw).status_code == 200
        found = http.get(f"/internal/history/{NAME}").json()
    assert sum(row["answered"] for row in found["rows"]) == before + 3
    assert all(0 < row["p50"] <= row["p95"] < 30 for row in found["rows"] if row["answered"])


def test_a_failed_request_counts_as_failed(fresh: World) -> None:
    from tests.unit.serving import world

    settings = fresh.zoo.settings.model_copy(update={"request_outputs": 5})
    with world.serving(settings) as (address, server), httpx.Client(base_url=f"http://{address}") as http:
        host = server.app.state.host  # type: ignore[attr-defined]

        async def refuse(*_: object) -> None:
            await asyncio.sleep(0)
            raise RuntimeError("broken")

        host.engine.ask = refuse
        raw = {"Inference-Header-Content-Length": "0"}
        assert http.post(f"/v2/models/{NAME}/infer", content=bytes(64), headers=raw).status_code == 500
        (row,) = http.get(f"/internal/history/{NAME}").json()["rows"]
    assert (row["answered"], row["failed"]) == (0, 1)
