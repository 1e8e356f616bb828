"""Programs that can be killed, frozen and restarted, also by another process than the one that started them."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

from tests.services.programs import Unavailable

PORTS = range(20_000, 32_000)
"""Below the ports of outgoing connections, so that no connection takes the port of a stopped service."""
# With `--pdeathsig` the kernel kills a child when the thread that forked it ends. This thread lives as long as the
# process.
_SPAWNER = ThreadPoolExecutor(1, "services")


class Process:
    """A program and its process.

    Args:
        command: Program and arguments.
        directory: Folder of its log and its pid file; the pid file identifies a process that is already running.
        user: User of the program, if this process runs as root.
        lasting: True: it survives this process. False: it is killed with this process.
    """

    def __init__(
        self, command: Sequence[str], directory: Path, *, user: str | None = None, lasting: bool = False
    ) -> None:
        self.name = Path(command[0]).name
        self.log = directory / f"{self.name}.log"
        self._command = [*_prefix(user, lasting), *command]
        self._pid_file = directory / f"{self.name}.pid"
        self._process = _read(self._pid_file)

    @property
    def pid(self) -> int | None:
        """Process id; None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.is_running() and self._process.status() != "zombie"

    def start(self) -> None:
        """Start the program, unless it is running."""
        if self.running:
            return
        self._process = psutil.Process(_SPAWNER.submit(self._spawn).result())
        self._pid_file.write_text(f"{self._process.pid} {self._process.create_time()}")

    def kill(self) -> None:
        """Send SIGKILL to the process and its children, and wait until they are dead."""
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            self._process.suspend()  # so that it cannot start further children
        family = self._family()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)

    def stop(self, seconds: float = 10) -> None:
        """Send SIGINT, and kill the process if it is still alive after `seconds`."""
        if self._process is None:
            return
        self.resume()
        with suppress(psutil.NoSuchProcess):
            self._process.send_signal(signal.SIGINT)
        with suppress(psutil.TimeoutExpired, psutil.NoSuchProcess):
            self._process.wait(seconds)
        self.kill()

    def pause(self) -> None:
        """Send SIGSTOP to the process and its children: connections stay open without responses."""
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Send SIGCONT to the process and its children."""
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def wait_until(self, answers: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until `answers` returns true.

        Raises:
            Unavailable: the process has ended, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not answers():
            if not self.running or time.monotonic() > deadline:
                what = "no answer in time" if self.running else "its end"
                said = self.log.read_text(errors="replace")[-600:]
                raise Unavailable(f"expected {self.name} to come up, got {what}; {self.log} ends with: {said}")
            time.sleep(0.02)

    def _spawn(self) -> int:
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        child.returncode = 0  # psutil waits for it, here or in another process; without this it warns when collected
        return child.pid

    def _family(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return [self._process, *self._process.children(recursive=True)]
        return [self._process]


def free_port() -> int:
    """A free TCP port on loopback."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise Unavailable(f"expected a free port from {PORTS.start} to {PORTS.stop}, got none in a hundred trials")


def own(directory: Path, user: str) -> None:
    """Make a user the owner of a directory, if this process runs as root.

    Raises:
        Unavailable: that user cannot reach the directory.
    """
    if os.geteuid() == 0:
        shutil.chown(directory, user, user)
        closed = next((p for p in directory.parents if not p.stat().st_mode & 0o001), None)
        if closed is not None:
            raise Unavailable(f"expected a directory that {user} can reach, got {closed} closed; choose another --dir")


def as_user(user: str) -> list[str]:
    """Prefix of a command that runs as `user`, if this process runs as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


def _prefix(user: str | None, lasting: bool) -> list[str]:
    prefix = as_user(user) if user else []
    return prefix if lasting else [*(prefix or ["setpriv"]), "--pdeathsig=KILL"]


def _read(pid_file: Path) -> psutil.Process | None:
    with suppress(FileNotFoundError, psutil.NoSuchProcess, ValueError):
        pid, born = pid_file.read_text().split()
        process = psutil.Process(int(pid))
        return process if process.create_time() == float(born) else None
    return None
