"""The files that containers are made from fit each other; none is started here."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[3]
COMPOSED = ("docker-compose.yml", "docker/embedded.yml")


def _services(name: str) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / name).read_text())["services"]
    return services


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
    services = _services("docker-compose.yml")
    asked = urlsplit(services["api"]["environment"]["PNC_SERVING_URL"])
    assert asked.hostname in services
    allowed = services[asked.hostname]["environment"]["PNC_ALLOWED_HOSTS"].split(",")
    assert asked.hostname in allowed


def test_what_may_be_large_is_not_kept_in_memory() -> None:
    ours = [one for name in COMPOSED for one in _services(name).values() if one.get("image", "").startswith("pnc-zoo")]
    assert len(ours) > 5
    assert not [place for one in ours for place in one.get("tmpfs", []) if str(place).startswith("/data")]
    image = (ROOT / "docker/Dockerfile").read_text()
    assert "VOLUME /data" in image
    assert "TMPDIR=/data" in image
