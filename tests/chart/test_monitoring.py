"""Alerts and dashboard use only metrics, labels and values that the service has."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from app.api.metrics import Figures, _FiguresCollector
from app.jobs import attempts
from app.serving.engine import metrics as serving
from tests.chart.tools import CHART, of_kind, promtool, rendered

ALERTS, DASHBOARD = CHART / "files/alerts.yaml", CHART / "files/dashboard.json"
WAITING = '{namespace="zoo",device="cpu",size="small"}'
FROM_OUTSIDE = {"namespace", "pod", "le", "job", "instance"}
"""Labels that Prometheus and the kinds of metrics add."""
NAME = re.compile(r"\bpnc_[a-z0-9_]+\b")
SELECTED = re.compile(r"(pnc_[a-z0-9_]+)\{([^}]*)\}")
BY = re.compile(r"by \(([^)]*)\)")


def families() -> Iterator[Metric]:
    """All metrics of API and serving, with every label."""
    registry = CollectorRegistry(auto_describe=False)
    found = Figures(
        versions={"validating": 1},
        oldest={("cpu", "small"): 1.0},
        ended={"silent": 1, attempts.OUT_OF_MEMORY: 1},
    )
    registry.register(_FiguresCollector(found))
    yield from registry.collect()
    serving.REQUESTS.labels("d", "1", "failed")
    serving.TURNED_AWAY.labels("bodies_full")
    for one in vars(serving).values():
        if isinstance(one, MetricWrapperBase):
            yield from one.collect()


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Labels by the name of each sample."""
    found: dict[str, set[str]] = {}
    for family in families():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> list[str]:
    rules = [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    documents = rendered(CHART / "examples/production.yaml")
    scaled = [o["spec"]["triggers"][0]["metadata"]["query"] for o in of_kind(documents, "ScaledObject")]
    assert (len(rules), len(asked), len(scaled)) > (5, 10, 1)
    return rules + asked + scaled


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_uses_metrics_and_labels_that_exist(known: dict[str, set[str]], expression: str) -> None:
    names = set(NAME.findall(expression))
    assert names
    assert names <= known.keys()
    labels = set.union(*(known[name] for name in names)) | FROM_OUTSIDE
    for grouped in BY.findall(expression):
        assert {label.strip() for label in grouped.split(",")} <= labels
    for name, selection in SELECTED.findall(expression):
        assert {part.split("=")[0].strip(" !~") for part in selection.split(",") if "=" in part} <= (
            known[name] | FROM_OUTSIDE
        )


def test_every_metric_is_on_the_dashboard(known: dict[str, set[str]]) -> None:
    shown = DASHBOARD.read_text()
    families = {re.sub(r"_(total|created|bucket|sum|count)$", "", name) for name in known}
    assert {name for name in families if name not in shown} == set()


def test_values_of_labels_exist() -> None:
    """The outcomes that alerts ask for are those that the service writes."""
    text = ALERTS.read_text()
    assert f'outcome="{attempts.SILENT}"' in text
    assert f'outcome="{attempts.OUT_OF_MEMORY}"' in text


def test_prometheus_can_read_the_rules(tmp_path: Path) -> None:
    done = subprocess.run([promtool(tmp_path), "check", "rules", ALERTS], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_an_alert_fires(tmp_path: Path) -> None:
    """Prometheus itself evaluates the rules on made-up series."""
    action = "Add workers of this device and size, or look at the log of those that run."
    case = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f"pnc_queue_age_seconds{WAITING}", "values": "1700+60x30"},
                ],
                "alert_rule_test": [
                    {"eval_time": "5m", "alertname": "PncJobsWait", "exp_alerts": []},
                    {
                        "eval_time": "20m",
                        "alertname": "PncJobsWait",
                        "exp_alerts": [
                            {
                                "exp_labels": {
                                    "severity": "warning", "namespace": "zoo", "device": "cpu", "size": "small"
                                },
                                "exp_annotations": {
                                    "summary": "The oldest small job for cpu has waited 48m 20s",
                                    "action": action,
                                },
                            }
                        ],
                    },
                ],
            }
        ],
    }  # fmt: skip
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    done = subprocess.run(
        [promtool(tmp_path), "test", "rules", tmp_path / "case.yaml"], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
