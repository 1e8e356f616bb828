"""A user's whole way through the stack, while its containers are killed, restarted, taken down and brought up."""

import hashlib
import io
import json
import time
from contextlib import suppress
from pathlib import Path

import httpx
from rich.console import Console

from app.demo import CLONED, DIGITS, Material, png, prepare, register
from pnc_client import Client, ClientError, Job
from pnc_core.config import CloneConfig
from tests.compose.report import Report, wait_until
from tests.compose.stack import READY_SECONDS, URL, Stack, folder, is_ready, wait_ready

QUICK = CloneConfig(classes=CLONED, preset="fast", batch_size=64)
NAME = "digits"
JOB_SECONDS = 900
QUIET = Console(file=io.StringIO())
VOLUMES = ("data", "postgres")


def start(report: Report, stack: Stack) -> None:
    """Start from nothing."""
    began = time.monotonic()
    stack.up()
    report.note("seconds of the first start", round(time.monotonic() - began))
    report.check("up --wait", True)
    report.check("the API is ready", is_ready())
    told = stack.execute("worker", "python", "-IS", "/opt/pnc/healthcheck.py", "/healthz")
    report.equal("the worker answers /healthz", told[0], 0)
    named = httpx.get(f"{URL}/healthz", headers={"Host": "10.1.2.3:8000"}, timeout=20).status_code
    foreign = httpx.get(f"{URL}/healthz", headers={"Host": "evil.example"}, timeout=20).status_code
    report.equal("monitors may ask by address, strangers may not by name", (named, foreign), (200, 403))
    for service in ("api", "serving", "worker", "postgres", "redis"):
        used = stack.box.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", stack.containers(service)[0])
        report.note(f"memory of {service}", used)


class Life:
    """One user's things in the stack.

    Args:
        report: The result.
        stack: The running stack.
    """

    def __init__(self, report: Report, stack: Stack) -> None:
        self.report, self.stack, self.folder = report, stack, folder(stack.box)
        self.material: Material | None = None
        self.module = self.digest = ""

    def clone(self) -> None:
        """Register, clone on two workers of which one is killed, download, attach, predict, detach."""
        report, stack = self.report, self.stack
        self.material = prepare(0, QUIET)
        with Client(URL, timeout=120) as client:
            dataset = register(client, self.material, self.folder, QUIET)
            report.check("register two models and a dataset", True)
            stack.up("--no-recreate", "--scale", "worker=2")
            report.equal("two workers", len(stack.containers("worker")), 2)
            job = client.jobs.create("digits-low", "digits-high", dataset.id, QUICK)
            self._kill_its_worker(client, job)
            job = client.jobs.wait(job.id)
            attempts = list(client.jobs.attempts(job.id))
            report.check(
                "the job succeeds although its worker is killed", job.state == "succeeded", job.problem or job.state
            )
            report.note("attempts of the job", len(attempts))
            self.module = job.module or ""
            self.digest = self._download(client)
            client.deployments.create(NAME, "digits-low")
            client.deployments.attach(NAME, self.module)
            client.deployments.wait(NAME)
            report.equal("with the module it sees a seven", self.seen(client), "7")
            client.deployments.detach(NAME, self.module)
            client.deployments.wait(NAME)
            report.check("without the module it does not", self.seen(client) != "7")

    def _kill_its_worker(self, client: Client, job: Job) -> None:
        taken = wait_until(lambda: client.jobs.get(job.id).state == "running", 120, 0.2)
        name = next(iter(client.jobs.attempts(job.id))).worker if taken else ""
        hosts = [self.stack.execute("worker", "hostname")[1], ""]
        number = 0 if name.startswith(hosts[0]) else 1
        self.stack.kill(self.stack.containers("worker")[number])
        print(f"   killed worker {number + 1} of 2 while the job was {client.jobs.get(job.id).state}")

    def _download(self, client: Client) -> str:
        path: Path = client.modules.download(self.module, "full", self.folder / "bundle.safetensors")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def seen(self, client: Client) -> str:
        """The class that the deployment sees in an image of a seven."""
        assert self.material is not None
        seven = self.material.test.only([DIGITS[7]]).images[0]
        return client.deployments.predict(NAME, png(seven)).classes[0].name

    def faults(self) -> None:
        """Kill each container once; everything works again, and nothing is made up meanwhile."""
        with Client(URL, timeout=120) as client:
            expected = self.seen(client)
            for service in ("redis", "postgres", "serving", "api", "worker"):
                container = self.stack.containers(service)[0]
                self.stack.kill(container)
                back = wait_until(
                    lambda container=container: self.stack.was_revived(container) and self._sees(client, expected),
                    READY_SECONDS,
                )
                self.report.check(f"kill -9 of {service}: it comes back by itself and predictions go on", back)
        self._restart_serving()

    def _sees(self, client: Client, expected: str) -> bool:
        with suppress(ClientError, httpx.TransportError):
            return self.seen(client) == expected
        return False

    def _restart_serving(self) -> None:
        """While serving starts, a deployment is 503 with Retry-After, never 404."""
        assert self.material is not None
        image = png(self.material.test.images[0])
        self.stack.compose("restart", "--no-deps", "serving")
        seen: set[tuple[int, bool]] = set()
        for _ in range(READY_SECONDS):
            answer = httpx.post(
                f"{URL}/v1/deployments/{NAME}/predict", content=image, headers={"Content-Type": "image/png"}, timeout=60
            )
            seen.add((answer.status_code, "retry-after" in answer.headers))
            if answer.status_code == 200:
                break
            time.sleep(0.1)
        self.report.check(
            "after a restart of serving: 503 with Retry-After, then 200",
            seen in ({(200, False)}, {(503, True), (200, False)}),
            seen,
        )
        print(f"   answers: {sorted(seen)}")

    def down_and_up(self) -> None:
        """Take the stack down and bring it up; everything is still there, and nothing else is left."""
        report, stack = self.report, self.stack
        before, began = stack.volumes(), int(time.time())
        stack.compose("down")
        ended = int(time.time()) + 1
        report.note("seconds of down", ended - 1 - began)
        told = stack.box.docker(
            "events",
            "--since",
            str(began),
            "--until",
            str(ended),
            "--filter",
            "event=kill",
            "--format",
            "{{.Actor.Attributes.name}} {{.Actor.Attributes.signal}}",
        )
        killed = [line.split()[0] for line in told.splitlines() if line.endswith(" 9")]
        report.equal("down kills no container", killed, [])
        stack.up()
        report.check("up again", wait_ready())
        report.equal("no volumes left behind", stack.volumes(), before)
        with Client(URL, timeout=120) as client:
            counts = [len(list(kind.list())) for kind in (client.models, client.datasets, client.modules)]
            report.equal("everything is still there", counts, [2, 1, 1])
            report.equal("the same bundle", self._download(client), self.digest)
            client.deployments.attach(NAME, self.module)
            client.deployments.wait(NAME)
            report.equal("the deployment serves again", self.seen(client), "7")
        stack.up("--no-recreate", "--scale", "worker=2")
        report.check("up --wait with two workers", True)
        for name in VOLUMES:
            report.note(f"megabytes of volume {name}", stack.volume_megabytes(name))
        stored = sum(path.stat().st_size for path in self.folder.glob("*.safetensors")) / 1e6
        used = stack.volume_megabytes("data")
        report.check("the store takes disk in proportion", used < 10 * stored + 20, f"{used} MB for {stored} MB")


def check_embedded(report: Report, stack: Stack, *, keep: bool) -> None:
    """The embedded service in one container."""
    began = time.monotonic()
    stack.up()
    report.check("up --wait of one container", wait_ready())
    report.note("seconds of the start of one container", round(time.monotonic() - began))
    answer = httpx.get(f"{URL}/v1/models", timeout=60)
    report.equal("it answers", (answer.status_code, json.loads(answer.text)["data"]), (200, []))
    if not keep:
        stack.compose("down")
        report.check("its volume stays", any(name.endswith("_data") for name in stack.volumes()))
        stack.compose("down", "--volumes")
