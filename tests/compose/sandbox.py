"""A Docker daemon in namespaces of its own, without any change to the machine."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.compose.machine import KEYRING, CannotRun, PipFolders, debian_mirror, pip_folders
from tests.services.programs import Unavailable, find

ROOT = Path(__file__).parents[2]
GATEWAY, PORT = "172.17.0.1", 18250
"""Docker's bridge, and the port on it that serves this machine's packages to the builds."""
PROJECT = "pnc"
TOOLS = (
    "docker.io,docker-cli,docker-compose,docker-buildx,iptables,iproute2,procps,mount,util-linux,ca-certificates,"
    "curl,python3,xz-utils"
)
SLIM = (
    f"--keyring={KEYRING}",
    '--aptopt=Acquire::Languages "none"',
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
)


@dataclass(frozen=True)
class Sandbox:
    """The running sandbox.

    Args:
        work: Folder of all its files.
        pid: Process whose namespaces it has.
        index: pip's `--extra-index-url` inside the builds.
    """

    work: Path
    pid: int
    index: str

    def run(self, *command: str, check: bool = True, seconds: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run a command inside, in the project's folder. Its output goes to standard output of the result.

        Raises:
            subprocess.CalledProcessError: it failed, unless `check` is false.
        """
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "TERM": "dumb",
            "COMPOSE_PROJECT_NAME": PROJECT,
            "PIP_EXTRA_INDEX_URL": self.index,
        }
        variables = [f"{name}={value}" for name, value in environment.items()]
        enter = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-r", "-w", "env", "-i", *variables]
        inside = ["sh", "-c", 'cd /proj && exec "$@"', "sh", *command]
        done = subprocess.run(
            [*enter, *inside], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False
        )
        if check and done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout)
        return done

    def docker(self, *words: str, **options: Any) -> str:
        """Run `docker`; returns its output."""
        return self.run("docker", *words, **options).stdout.strip()

    def has_image(self, name: str) -> bool:
        """Whether the daemon has an image."""
        return self.run("docker", "image", "inspect", name, check=False).returncode == 0


def bootstrap(work: Path, suite: str, variant: str, packages: str, target: str) -> None:
    """Make a file system of Debian packages below `work`, unless it is there."""
    if (work / target).exists():
        return
    (work / target).parent.mkdir(parents=True, exist_ok=True)
    half = work / f"{target.removesuffix('.tar')}.half{'.tar' if target.endswith('.tar') else ''}"
    with suppress(FileNotFoundError):
        shutil.rmtree(half) if half.is_dir() else half.unlink()
    command = [find("mmdebstrap", ["mmdebstrap"]), f"--variant={variant}", *SLIM, f"--include={packages}"]
    done = subprocess.run([*command, suite, str(half), debian_mirror()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"expected mmdebstrap to make {target} of {suite}, got: {done.stderr[-600:]}")
    half.rename(work / target)


def served(work: Path, folders: PipFolders) -> tuple[str, list[str]]:
    """Lay this machine's package folders out below `work/serve`, for builds in the sandbox.

    Returns:
        The indexes for pip, separated by spaces, and the folders to mount.
    """
    serve, indexes, mounts = work / "serve", [], []
    shutil.rmtree(serve, ignore_errors=True)
    serve.mkdir(parents=True)
    for number, folder in enumerate(folders.links):
        (serve / f"l{number}").symlink_to(f"/host{folder}")
        # Only torch is taken from a folder of wheels: its CPU build is in no ordinary index.
        page = serve / f"w{number}" / "torch"
        page.mkdir(parents=True)
        wheels = [wheel.name for wheel in sorted(folder.glob("torch-*.whl"))]
        links = [f'<a href="/l{number}/{name.replace("+", "%2B")}">{name}</a>\n' for name in wheels]
        (page / "index.html").write_text("".join(links))
        indexes.append(f"http://{GATEWAY}:{PORT}/w{number}")
        mounts.append(str(folder))
    for number, folder in enumerate(folders.indexes):
        (serve / f"i{number}").symlink_to(f"/host{folder.parent}")
        indexes.append(f"http://{GATEWAY}:{PORT}/i{number}/{folder.name}")
        mounts.append(str(folder.parent))
    return " ".join(indexes), mounts


@contextmanager
def sandbox(work: Path, *, keep: bool = False) -> Iterator[Sandbox]:
    """Run a Docker daemon within a block.

    Args:
        work: Folder of all files; files of earlier runs are used again.
        keep: Leave it running at the end.

    Raises:
        CannotRun: this machine cannot run it.
    """
    if os.geteuid() != 0:
        raise CannotRun("expected root, which a Docker daemon needs, got another user; run it with sudo")
    for name in ("log", "docker-data"):
        (work / name).mkdir(parents=True, exist_ok=True)
    try:
        bootstrap(work, "trixie", "apt", TOOLS, "toolroot")
        slirp = find("slirp4netns", ["slirp4netns"])
    except Unavailable as error:
        raise CannotRun(str(error)) from None
    index, mounts = served(work, pip_folders())
    script = str(Path(__file__).with_name("sandbox.sh"))
    command = [
        "unshare",
        "-m",
        "-n",
        "-p",
        "-f",
        "--kill-child",
        "bash",
        script,
        str(work),
        str(ROOT),
        str(PORT),
        *mounts,
    ]
    with (work / "log/sandbox.log").open("w") as log:
        outer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    pid = _child_of(outer, work)
    net = [slirp, "--configure", "--mtu=65520", "--disable-host-loopback", str(pid), "tap0"]
    with (work / "log/slirp.log").open("w") as log:
        network = subprocess.Popen(net, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    inside = Sandbox(work, pid, index)
    try:
        _wait_for_docker(inside)
        yield inside
    finally:
        if keep:
            print(f"   kept: end it with kill -9 {pid}; kill {network.pid}")
        else:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            network.kill()
            network.wait()
            outer.wait()


def _child_of(outer: "subprocess.Popen[bytes]", work: Path) -> int:
    """The process inside the new namespaces."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    for _ in range(100):
        with suppress(OSError):
            if found := children.read_text().split():
                return int(found[0])
        if outer.poll() is not None:
            break
        time.sleep(0.1)
    outer.kill()
    raise CannotRun(f"expected new namespaces, got: {(work / 'log/sandbox.log').read_text()[-400:]}")


def _wait_for_docker(inside: Sandbox) -> None:
    for _ in range(60):
        if inside.run("docker", "info", check=False, seconds=60).returncode == 0:
            return
        time.sleep(1)
    log = inside.work / "log/dockerd.log"
    told = log.read_text()[-600:] if log.exists() else (inside.work / "log/sandbox.log").read_text()[-600:]
    raise CannotRun(f"expected a Docker daemon, got: {told}")


def enter_network(inside: Sandbox, command: Sequence[str]) -> int:
    """Run a program of this machine in the sandbox's network; returns its exit status."""
    return subprocess.run(["nsenter", "-t", str(inside.pid), "-n", *command], check=False, cwd=ROOT).returncode
