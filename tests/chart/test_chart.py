"""The Helm chart renders to valid objects, for each of its examples, and refuses values that cannot work."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.tools import CHART, TOOLS, of_kind, rendered, run_helm

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
"""Kinds of other projects, whose schemas kubernetes-validate does not have."""


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Specifications of all pods by the name of their object."""
    return {
        d["metadata"]["name"]: d["spec"]["template"]["spec"]
        for kind in ("Deployment", "StatefulSet", "Job")
        for d in of_kind(documents, kind)
    }


def test_there_are_three_examples() -> None:
    assert [file.stem for file in EXAMPLES] == ["claim", "production", "trial"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_the_chart_is_well_made(example: Path) -> None:
    done = run_helm("lint", "--strict", CHART, "--values", example)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_every_object_is_valid(example: Path, tmp_path: Path) -> None:
    documents = rendered(example)
    own = [document for document in documents if document["kind"] not in FOREIGN]
    assert len(own) > 7
    (tmp_path / "own.yaml").write_text(yaml.safe_dump_all(own))
    done = subprocess.run(
        [TOOLS / "bin/kubernetes-validate", "--strict", tmp_path / "own.yaml"],
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARN" not in done.stdout + done.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_every_pod_is_confined(example: Path) -> None:
    for name, pod in pods(rendered(example)).items():
        context = pod["securityContext"]
        assert context["runAsNonRoot"], name
        assert context["runAsUser"] == context["runAsGroup"], name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"] is True, name
            assert confined["allowPrivilegeEscalation"] is False
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"]["memory"]
            assert "readinessProbe" in container or "migrate" in name
            places = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= {
                volume["name"] for volume in pod["volumes"]
            } | {"data"}
            assert places


def test_selectors_find_their_pods() -> None:
    for example in EXAMPLES:
        documents = rendered(example)
        labels = [
            d["spec"]["template"]["metadata"]["labels"]
            for kind in ("Deployment", "StatefulSet", "Job")
            for d in of_kind(documents, kind)
        ]
        wanted = [d["spec"]["selector"] for d in of_kind(documents, "Service")]
        wanted += [
            d["spec"].get("selector", d["spec"].get("podSelector"))["matchLabels"]
            for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy")
            for d in of_kind(documents, kind)
        ]
        assert len(wanted) > 6
        for selector in wanted:
            assert any(selector.items() <= pod.items() for pod in labels), selector


def test_a_monitor_finds_a_service_with_its_port_and_secret() -> None:
    documents = rendered(CHART / "examples/production.yaml")
    services = list(of_kind(documents, "Service"))
    for monitor in of_kind(documents, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        found = [s for s in services if selector.items() <= s["metadata"]["labels"].items()]
        assert len(found) == 1
        endpoint = monitor["spec"]["endpoints"][0]
        assert endpoint["port"] in {port["name"] for port in found[0]["spec"]["ports"]}
        assert endpoint["authorization"]["credentials"] == {"name": "pnc-zoo", "key": "internal-key"}


def test_workers_are_scaled_by_the_queue_of_their_device() -> None:
    documents = rendered(CHART / "examples/production.yaml")
    deployments = {d["metadata"]["name"]: d for d in of_kind(documents, "Deployment")}
    scaled = list(of_kind(documents, "ScaledObject"))
    assert len(scaled) == 2
    for one in scaled:
        name = one["spec"]["scaleTargetRef"]["name"]
        assert "replicas" not in deployments[name]["spec"]
        trigger = one["spec"]["triggers"][0]["metadata"]
        device = "cuda" if name.endswith("gpu") else "cpu"
        assert f'device=~"any|{device}"' in trigger["query"]
        assert set(trigger) == {"serverAddress", "query", "threshold", "activationThreshold"}


def test_the_migration_comes_first_where_the_database_exists() -> None:
    hook = "helm.sh/hook"
    (job,) = of_kind(rendered(CHART / "examples/production.yaml"), "Job")
    assert job["metadata"]["annotations"][hook] == "pre-install,pre-upgrade"
    (job,) = of_kind(rendered(CHART / "examples/trial.yaml"), "Job")
    assert hook not in job["metadata"].get("annotations", {})


def test_serving_drains_within_its_grace() -> None:
    for example in EXAMPLES:
        for name, pod in pods(rendered(example)).items():
            if name.endswith("serving"):
                drain = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
                running = 30  # for which `pnc serve` waits for running predictions
                assert pod["terminationGracePeriodSeconds"] >= drain + running


def test_every_secret_file_is_in_the_secret_that_the_chart_makes() -> None:
    documents = rendered(CHART / "examples/trial.yaml")
    made = {s["metadata"]["name"]: set(s["stringData"]) for s in of_kind(documents, "Secret")}
    mounted = 0
    for pod in pods(documents).values():
        for volume in pod["volumes"]:
            if "secret" in volume:
                items = {item["key"] for item in volume["secret"].get("items", [])}
                assert items <= made[volume["secret"]["secretName"]]
                mounted += 1
    assert mounted >= 7


WRONG = {
    "workers: {cpu: {device: tpu}}": "device",
    "workers: {cpu: {replicas: -1}}": "replicas",
    "settings: {DATABASE_URL: x}": "DATABASE_URL",
    "store: {kind: ftp}": "kind",
    "nonsense: 1": "nonsense",
    "serving: {terminationGracePeriodSeconds: 5}": "terminationGracePeriodSeconds",
    "postgres: {bundled: true}": "redis.bundled must be true",
    "{postgres: {bundled: true}, redis: {bundled: true}}": "store.bundled",
    "{secrets: {existingSecret: s}, store: {kind: claim}}": "store.existingClaim: expected a claim",
    "{secrets: {existingSecret: s}, ingress: {enabled: true}}": "ingress.host: expected the name",
    "{}": "secrets.existingSecret: expected an existing Secret",
}


@pytest.mark.parametrize("values", WRONG)
def test_values_that_cannot_work_are_refused(values: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(values)
    done = run_helm("template", "zoo", CHART, "--values", file)
    assert done.returncode != 0
    assert WRONG[values] in done.stderr
