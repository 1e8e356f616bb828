"""The load model sums measured costs, and finds the part that reaches its capacity first."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.settings import Settings
from benchmarks.load.acts import ACTS, JOB_SECONDS, intervals, reports
from benchmarks.load_model import CAPACITIES, Cluster, Cost, demand, limits
from workers import runner

CLUSTER = Cluster(workers=100, replicas=10, modules=10_000_000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def costs() -> list[Cost]:
    """Each act costs a millisecond and two statements."""
    return [Cost(act.name, 2, act.writes, 1.0, 5.0) for act in ACTS]


def test_every_act_with_an_interval_is_measured(settings: Settings) -> None:
    names = {act.name for act in ACTS}
    for way in ("wake-ups", "polling"):
        assert {name for _, name in intervals(way, settings)} <= names  # type: ignore[arg-type]


def test_polling_grows_with_idle_workers_and_wake_ups_do_not(costs: list[Cost], settings: Settings) -> None:
    idle = replace(CLUSTER, busy=0.0)
    for way, grows in (("polling", True), ("wake-ups", False)):
        few, many = (
            demand(costs, way, replace(idle, workers=number), settings)["processors"]["look for imports"]  # type: ignore[arg-type]
            for number in (100, 1000)
        )
        assert (many > few) == grows
    assert demand(costs, "polling", idle, settings)["processors"]["look for imports"] == pytest.approx(100 / 0.3 / 1000)


def test_a_cost_that_grows_is_that_of_the_number_of_modules(costs: list[Cost], settings: Settings) -> None:
    growing = [replace(cost, per_million=2.0) if cost.name == "count of all jobs" else cost for cost in costs]
    few, many = (
        demand(growing, "polling", replace(CLUSTER, modules=modules), settings)["processors"]["count of all jobs"]
        for modules in (0, 10_000_000)
    )
    assert many == pytest.approx(21 * few)


def test_at_the_limit_a_part_is_at_its_capacity(costs: list[Cost], settings: Settings) -> None:
    found = limits(costs, "polling", CLUSTER, settings)
    most = found["database connections"]
    used = demand(costs, "polling", CLUSTER.scaled(most / CLUSTER.workers), settings)["parts"]["database connections"]
    assert CAPACITIES["database connections"] - 10 < used <= CAPACITIES["database connections"]


def test_long_jobs_report_ever_more_seldom() -> None:
    assert reports(25) == 50
    assert reports(JOB_SECONDS) < 0.2 * JOB_SECONDS / runner.REPORT_SECONDS
    assert reports(7200) - reports(3600) == pytest.approx(3600 / runner.MOST_REPORT_SECONDS, abs=1)
