"""One stack of containers, from its compose files."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.compose.report import wait_until
from tests.compose.sandbox import PROJECT, Sandbox

URL = "http://127.0.0.1:8000"
READY_SECONDS = 400
"""Time for a start: several processes import torch at once on few cores."""


class Stack:
    """Commands of Compose on one set of files.

    Args:
        box: The sandbox.
        files: The compose files.
    """

    def __init__(self, box: Sandbox, *files: str) -> None:
        self.box = box
        self._files = [word for file in files for word in ("-f", file)]

    def compose(self, *words: str, check: bool = True, seconds: float = 1800) -> str:
        """Run `docker compose`; returns its output."""
        command = ("docker", "compose", "--progress", "plain", *self._files, *words)
        return self.box.run(*command, check=check, seconds=seconds).stdout

    def up(self, *words: str) -> None:
        """Start the stack and wait until every service is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(READY_SECONDS), *words)

    def containers(self, service: str) -> list[str]:
        """Ids of the running containers of a service."""
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, service: str) -> dict[str, Any]:
        """The state of the first container of a service, as `docker inspect` shows it."""
        shown: list[dict[str, Any]] = json.loads(self.box.docker("inspect", self.containers(service)[0]))
        return shown[0]

    def execute(self, service: str, *command: str, user: str | None = None) -> tuple[int, str]:
        """Run a command in the first container of a service; returns status and output."""
        options = ["--user", user] if user else []
        done = self.box.run("docker", "exec", *options, self.containers(service)[0], *command, check=False)
        return done.returncode, done.stdout.strip()

    def kill(self, container: str) -> None:
        """Kill a container as if its process had died, so that its restart policy applies."""
        self.box.run("kill", "-9", self.box.docker("inspect", "--format", "{{.State.Pid}}", container))

    def was_revived(self, container: str) -> bool:
        """Whether Docker has restarted a container and finds it healthy."""
        state = self.box.docker("inspect", "--format", "{{.RestartCount}} {{.State.Health.Status}}", container)
        return not state.startswith("0 ") and state.endswith(" healthy")

    def volume_megabytes(self, name: str) -> float:
        """Disk that a volume takes, in MB."""
        place = f"/var/lib/docker/volumes/{PROJECT}_{name}/_data"
        return int(self.box.run("du", "-sk", place).stdout.split()[0]) / 1000

    def volumes(self) -> set[str]:
        """Names of all volumes."""
        return set(self.box.docker("volume", "ls", "--quiet").split())

    def environment(self, service: str) -> dict[str, str]:
        """Environment of a service's first container."""
        return dict(entry.split("=", 1) for entry in self.inspect(service)["Config"]["Env"])


def is_ready() -> bool:
    """Whether the API is ready."""
    with suppress(httpx.TransportError):
        return httpx.get(f"{URL}/readyz", timeout=20).status_code == 200
    return False


def wait_ready() -> bool:
    """Wait until the API is ready."""
    return wait_until(is_ready, READY_SECONDS)


def listening(box: Sandbox, pid: int = 1) -> set[int]:
    """TCP ports that listen on an address that is not loopback.

    Args:
        box: The sandbox.
        pid: A process in the network to look at; 1: the sandbox's own.
    """
    told = box.run("nsenter", "-t", str(pid), "-n", "ss", "-ltnH").stdout
    local = [line.split()[3] for line in told.splitlines()]
    outside = [address for address in local if not address.startswith(("127.", "[::1]"))]
    return {int(address.rpartition(":")[2]) for address in outside}


def folder(box: Sandbox) -> Path:
    """Folder for downloads and logs."""
    made = box.work / "walk"
    made.mkdir(exist_ok=True)
    return made
