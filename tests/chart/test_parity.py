"""Compose and the chart give each role the same: program, environment, files of secrets, port, health and user."""

from typing import Any

import pytest
import yaml

from app.settings import Settings
from tests.chart.tools import CHART, ROOT, of_kind, rendered

ROLES = {"api": "zoo-pnc-zoo-api", "serving": "zoo-pnc-zoo-serving", "worker": "zoo-pnc-zoo-worker-cpu"}
ONLY_COMPOSE = {
    # Keys are required in a cluster; Compose publishes on loopback only.
    "api": {"PNC_PUBLISHED_ON_LOOPBACK"},
    "serving": {"PNC_PUBLISHED_ON_LOOPBACK"},
    "worker": set(),
    "migrate": set(),
}
ONLY_CHART = {
    "api": {"PNC_REQUIRE_KEYS", "PNC_ALLOWED_HOSTS"},
    "serving": {"PNC_REQUIRE_KEYS", "PNC_DEVICE"},
    "worker": {"PNC_HOST", "PNC_WORKER_DEVICE"},  # probes come from outside the pod; the class says the device
    "migrate": set(),
}
NAMED_AFTER_PLACES = {"PNC_SERVING_URL", "PNC_ALLOWED_HOSTS", "PNC_STORE_ENDPOINT", "PNC_STORE_PUBLIC_ENDPOINT"}


def composed(*files: str) -> dict[str, dict[str, Any]]:
    """Services of Compose: later files add to earlier ones."""
    services: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, one in yaml.safe_load((ROOT / file).read_text())["services"].items():
            before = services.get(name, {})
            environment = {**before.get("environment", {}), **one.get("environment", {})}
            services[name] = {**before, **one, "environment": environment}
    return services


@pytest.fixture(scope="module")
def compose() -> dict[str, dict[str, Any]]:
    return composed("docker-compose.yml", "docker/s3.yml")


@pytest.fixture(scope="module")
def chart() -> dict[str, dict[str, Any]]:
    """Pods of the chart with everything bundled, as Compose has it, by role."""
    documents = rendered(CHART / "examples/trial.yaml")
    pods = {d["metadata"]["name"]: d for kind in ("Deployment", "StatefulSet") for d in of_kind(documents, kind)}
    found = {role: pods[name]["spec"]["template"]["spec"] for role, name in ROLES.items()}
    (job,) = of_kind(documents, "Job")
    found |= {"migrate": job["spec"]["template"]["spec"]}
    return found | {r: pods[f"zoo-pnc-zoo-{r}"]["spec"]["template"]["spec"] for r in ("postgres", "redis", "store")}


@pytest.mark.parametrize("role", [*ROLES, "migrate"])
def test_the_environment(compose: dict[str, Any], chart: dict[str, Any], role: str) -> None:
    ours = compose[role]["environment"]
    theirs = {entry["name"]: entry["value"] for entry in chart[role]["containers"][0]["env"]}
    assert set(ours) - set(theirs) == ONLY_COMPOSE[role]
    assert set(theirs) - set(ours) - NAMED_AFTER_PLACES == ONLY_CHART[role] - NAMED_AFTER_PLACES
    for name in ours.keys() & theirs.keys() - NAMED_AFTER_PLACES:
        assert theirs[name] == ours[name], name
    fields = {f"PNC_{field.upper()}" for field in Settings.model_fields}
    known = fields | {f"{field}_FILE" for field in fields}
    assert {name for name in theirs if name.startswith("PNC_")} <= known


@pytest.mark.parametrize("role", [*ROLES, "migrate"])
def test_the_files_of_secrets(chart: dict[str, Any], role: str) -> None:
    from tests.unit.docs.test_containers import _secrets

    (volume,) = [v for v in chart[role]["volumes"] if v["name"] == "secrets"]
    assert {item["path"] for item in volume["secret"]["items"]} == set(_secrets()[role])


@pytest.mark.parametrize("role", [*ROLES, "migrate"])
def test_the_program_image_and_user(compose: dict[str, Any], chart: dict[str, Any], role: str) -> None:
    container = chart[role]["containers"][0]
    words = container.get("args") or container["command"][-1].split()[-1:]
    assert words[0] == compose[role]["command"][0]
    assert container["image"].partition(":")[0] == compose[role]["image"]
    assert chart[role]["securityContext"]["runAsUser"] == 10001
    places = {volume.split(":")[1] for volume in compose[role]["volumes"]} | {"/tmp"}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == places


@pytest.mark.parametrize("role", ROLES)
def test_port_health_and_grace(compose: dict[str, Any], chart: dict[str, Any], role: str) -> None:
    container = chart[role]["containers"][0]
    assert [port["containerPort"] for port in container["ports"]] == [8000]
    assert "healthcheck.py" in " ".join(compose[role]["healthcheck"]["test"])
    asked = (ROOT / "docker/healthcheck.py").read_text()
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert '"/readyz"' in asked
    assert "PORT = 8000" in asked
    assert chart[role]["terminationGracePeriodSeconds"] >= int(compose[role]["stop_grace_period"].removesuffix("s"))


@pytest.mark.parametrize("part", ["postgres", "redis", "store"])
def test_bundled_parts(compose: dict[str, Any], chart: dict[str, Any], part: str) -> None:
    container = chart[part]["containers"][0]
    assert container["image"] == compose[part]["image"]
    if part == "postgres":
        assert all({"name": n, "value": v} in container["env"] for n, v in compose[part]["environment"].items())
    if part == "redis":
        assert container["command"] == compose[part]["command"]
    if part == "store":
        assert container["command"] == compose[part]["entrypoint"]
        assert container["args"] == compose[part]["command"]


def test_the_store_is_configured_in_the_same_way() -> None:
    from tests.unit.docs.test_containers import _secrets

    documents = rendered(CHART / "examples/trial.yaml")
    (made,) = [s["stringData"] for s in of_kind(documents, "Secret") if s["metadata"]["name"].endswith("-store")]
    ours = _secrets()["store"]
    assert set(ours) <= set(made)
    assert made["security.toml"].split() == ours["security.toml"].split()
    assert made["filer.toml"] == ours["filer.toml"]


def test_a_directory_is_shared_in_the_same_way() -> None:
    """Without S3, Compose and the chart give all roles one directory, at the place of the data directory."""
    ours = composed("docker-compose.yml")
    for role in ("api", "serving", "worker"):
        assert "data:/data" in ours[role]["volumes"]
    for deployment in of_kind(rendered(CHART / "examples/claim.yaml"), "Deployment"):
        volumes = deployment["spec"]["template"]["spec"]["volumes"]
        (data,) = [volume for volume in volumes if volume["name"] == "data"]
        assert data["persistentVolumeClaim"] == {"claimName": "zoo-objects"}
