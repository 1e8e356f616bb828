"""The files that containers are made from fit each other; none is started here. `make compose` starts them."""

import importlib.util
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from app.settings import Settings

ROOT = Path(__file__).parents[3]
CLUSTER, S3, EMBEDDED = "docker-compose.yml", "docker/s3.yml", "docker/embedded.yml"
COMPOSED = (CLUSTER, S3, EMBEDDED)
SECRETS = "/run/secrets/pnc"
ONCE = {"secrets", "bucket", "migrate"}
"""Services that end by themselves."""


def _services(name: str) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / name).read_text())["services"]
    return services


def _whole() -> list[tuple[str, dict[str, Any]]]:
    """All services, without the additions that one file makes to a service of another."""
    return [(name, one) for file in COMPOSED for name, one in _services(file).items() if "image" in one]


def _ours() -> list[tuple[str, dict[str, Any]]]:
    return [(name, one) for name, one in _whole() if one["image"].startswith("pnc-zoo")]


def _secrets() -> dict[str, dict[str, str]]:
    """Files of each service, as docker/make_secrets.py writes them."""
    spec = importlib.util.spec_from_file_location("make_secrets", ROOT / "docker/make_secrets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files: dict[str, dict[str, str]] = module.files_of({name: f"value-of-{name}" for name in module.NAMES})
    return files


def test_what_the_image_copies_is_sent_to_its_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    admitted = [line[1:] for line in lines if line.startswith("!")]
    sent = {path.relative_to(ROOT) for pattern in admitted for path in ROOT.glob(pattern)}
    steps = [line.split() for line in (ROOT / "docker/Dockerfile").read_text().splitlines() if line[:1].isupper()]
    copied = [names for step, *names in steps if step == "COPY" and not names[0].startswith("--from")]
    wanted = {Path(name) for *names, _ in copied for name in names}
    assert len(wanted) > 10
    assert wanted <= sent


@pytest.mark.parametrize("name", COMPOSED)
def test_programs_that_containers_run_are_in_the_image(name: str) -> None:
    copied = (ROOT / "docker/Dockerfile").read_text()
    texts = [str(value) for service in _services(name).values() for value in service.values()]
    programs = {word.strip("'\",[]") for text in texts for word in text.split() if "/opt/pnc/" in word}
    assert programs
    assert all(f"docker/{Path(program).name}" in copied for program in programs)


def test_a_service_answers_to_the_name_that_others_know_it_by() -> None:
    services = _services(CLUSTER)
    asked = urlsplit(services["api"]["environment"]["PNC_SERVING_URL"])
    assert asked.hostname in services
    allowed = services[asked.hostname]["environment"]["PNC_ALLOWED_HOSTS"].split(",")
    assert asked.hostname in allowed


def test_what_may_be_large_is_not_kept_in_memory() -> None:
    assert len(_ours()) > 7
    for name, one in _ours():
        tmpfs = [place.partition(":")[0] for place in one.get("tmpfs", [])]
        assert set(tmpfs) <= {"/tmp"}
        if name not in {"secrets", "bucket"}:
            assert any(volume.endswith(":/data") for volume in one["volumes"]), name
    assert "TMPDIR=/data" in (ROOT / "docker/Dockerfile").read_text()


def test_no_volume_is_without_a_name() -> None:
    """A volume without a name is left behind by each `down`."""
    assert "VOLUME" not in (ROOT / "docker/Dockerfile").read_text()
    for file in COMPOSED:
        document = yaml.safe_load((ROOT / file).read_text())
        named = set(document["volumes"]) | set(yaml.safe_load((ROOT / CLUSTER).read_text())["volumes"])
        used = {v.partition(":")[0] for one in document["services"].values() for v in one.get("volumes", [])}
        assert used <= named
    # Images of others that declare a volume get one of ours, or memory, in its place.
    declared = {"postgres": "/var/lib/postgresql/data", "redis": "/data", "store": "/data"}
    for name, one in _whole():
        if name in declared:
            places = [v.split(":")[1] for v in one["volumes"]] + [t.partition(":")[0] for t in one.get("tmpfs", [])]
            assert declared[name] in places


@pytest.mark.parametrize("service", _whole(), ids=lambda pair: pair[0])
def test_every_service_is_limited_and_confined(service: tuple[str, dict[str, Any]]) -> None:
    name, one = service
    assert one["mem_limit"]
    assert one["pids_limit"]
    assert one["logging"]["options"]["max-size"]
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert name == "postgres" or one["read_only"] is True
    assert [port for port in one.get("ports", []) if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("service", _whole(), ids=lambda pair: pair[0])
def test_every_service_that_stays_has_a_patient_health_check(service: tuple[str, dict[str, Any]]) -> None:
    name, one = service
    if name in ONCE:
        assert one["healthcheck"] == {"disable": True}
        assert one["restart"] == "no"
        return
    check = one["healthcheck"]
    assert int(check["timeout"].removesuffix("s")) >= 30
    assert int(check["start_period"].removesuffix("s")) >= 60
    assert one["restart"] == "unless-stopped"


def test_a_service_that_ends_is_waited_for() -> None:
    """`up --wait` takes the end of a service for a failure unless another service waits for it."""
    for file in (CLUSTER, S3):
        services = _services(file)
        awaited = {
            name
            for one in services.values()
            for name, how in one.get("depends_on", {}).items()
            if how["condition"] == "service_completed_successfully"
        }
        assert set(services) & ONCE - {"migrate"} <= awaited
    assert "migrate" in _services(CLUSTER)["api"]["depends_on"]


def test_each_service_reads_only_its_own_secrets() -> None:
    files, roles = _secrets(), {"gpu-worker": "worker", "bucket": "migrate"}
    for name, one in _whole():
        mounted = [v for v in one.get("volumes", []) if SECRETS in v]
        if name == "secrets":
            assert {f"secrets-{role}:{SECRETS}/{role}" for role in files} <= set(mounted)
            assert one["network_mode"] == "none"
        elif name in files or name in roles:
            assert mounted == [f"secrets-{roles.get(name, name)}:{SECRETS}:ro"]
        else:
            assert mounted == []
    for name, one in _services(CLUSTER).items():
        named = {v for k, v in one.get("environment", {}).items() if k.endswith("_FILE")}
        have = {f"{SECRETS}/{file}" for file in files.get(roles.get(name, name), {})}
        assert named <= have
        assert not [k for k in one.get("environment", {}) if k in {"PNC_DATABASE_URL", "PNC_INTERNAL_KEY"}]
    assert "internal-key" not in files["worker"]
    assert "broker-url" not in files["serving"]
    assert "value-of-redis" not in str(files["serving"])


def test_settings_of_containers_exist() -> None:
    fields = {f"PNC_{name.upper()}" for name in Settings.model_fields}
    for file in COMPOSED:
        for one in _services(file).values():
            given = {name for name in one.get("environment", {}) if name.startswith("PNC_")}
            assert {name for name in given if name not in fields and name.removesuffix("_FILE") not in fields} == set()


def test_images_of_one_name_are_built_in_one_way() -> None:
    ways = defaultdict(set)
    for _, one in _ours():
        ways[one["image"]].add(str(sorted(one["build"]["args"].items())))
    assert {name: len(how) for name, how in ways.items()} == {"pnc-zoo": 1, "pnc-zoo-api": 1, "pnc-zoo-cuda": 1}
