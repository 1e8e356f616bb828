"""`pnc up`: the embedded service in one command.

A supervisor runs three children: the API, the serving process and a worker.
As on three machines, they share only the database, the store and network
connections. The supervisor restarts a child that dies. All children end with
the supervisor, even when it is killed.
"""

import logging
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy.exc import SQLAlchemyError

from app.access.auth import check_exposure
from app.access.secrets_at_rest import seal_all
from app.db.engine import migrate
from app.errors import Misconfigured
from app.process import permissions, signals
from app.process.children import python
from app.process.exclusive import only_one
from app.process.lifeline import child_environment
from app.process.pulse import Pulse
from app.process.resources import processors
from app.settings import Settings
from app.zoo import open_zoo

log = logging.getLogger(__name__)
STARTUP_SECONDS = 60
STOP_SECONDS = 15
BACKOFF_SECONDS = (0.2, 1, 2, 5, 10)
RUN_NETWORKS = 2
"""Number of children that run networks: the serving process, and the worker with its one job."""


class UpError(Exception):
    """The service cannot be started. The message says what to do."""


@dataclass
class Child:
    """A process that the supervisor keeps running."""

    name: str
    command: list[str]
    environment: dict[str, str]
    sockets: list[socket.socket] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    started: float = 0.0

    def start(self) -> None:
        """Start the process in its own session, so that Ctrl-C reaches only the supervisor."""
        self.started = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own modules, no shell
            self.command,
            env=self.environment,
            pass_fds=[s.fileno() for s in self.sockets],
            start_new_session=True,
        )

    def revive(self) -> None:
        """Restart the process if it has died and the pause after its last start is over."""
        assert self.process is not None
        if self.process.poll() is None:
            return
        if time.monotonic() - self.started > 60:
            self.deaths = 0
        pause = BACKOFF_SECONDS[min(self.deaths, len(BACKOFF_SECONDS) - 1)]
        if time.monotonic() - self.started >= pause:
            log.warning("%s ended with %s; restarting it", self.name, self.process.returncode)
            self.deaths += 1
            self.start()

    def stop(self) -> None:
        """Ask the process to end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def join(self, deadline: float) -> None:
        """Wait for the end of the process until the deadline, then kill it."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("%s did not end in time and is killed", self.name)
            self.kill()
            self.process.wait()

    def kill(self) -> None:
        """Kill the process and all its children."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


class Shutdown:
    """Requests of signals to the service: to end, or to end at once."""

    def __init__(self) -> None:
        # Plain flags: a signal handler interrupts the waiting thread, which may hold the lock of an Event.
        self.requested = self.immediate = False
        self.service: Service | None = None

    def listen(self) -> None:
        """Install the signal handlers of this process."""
        signals.on_signals(self._request, self._end_at_once)

    def _request(self) -> None:
        self.requested = True

    def _end_at_once(self) -> None:
        self.immediate = True
        if self.service is None:  # no child runs yet
            raise KeyboardInterrupt
        self.service.kill()


@contextmanager
def running(settings: Settings, shutdown: Shutdown | None = None) -> Iterator["Service"]:
    """Run the embedded service for the duration of a block.

    Args:
        settings: Settings of the service.
        shutdown: Requests of signals. A request to end cancels the start.

    Raises:
        UpError: the port or the data directory is in use, a child does not start, or other machines could use the
            service without keys.
    """
    with ExitStack() as stack:
        settings = _with_own_key(settings)
        permissions.begin(settings)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        _lock(stack, settings.data_dir)
        api = stack.enter_context(_listen(settings.host, settings.port))
        serving = stack.enter_context(_listen("127.0.0.1", 0))
        prepare(settings)
        service = Service(settings, api, serving, shutdown or Shutdown())
        stack.callback(service.stop)
        service.start()
        yield service


class Service:
    """The children of the embedded service.

    Args:
        settings: Settings of the service.
        api: Listening socket of the API.
        serving: Listening socket of the serving process, on loopback.
        shutdown: Requests of signals.
    """

    def __init__(self, settings: Settings, api: socket.socket, serving: socket.socket, shutdown: Shutdown) -> None:
        self._shutdown, shutdown.service = shutdown, self
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"http://{host}:{api.getsockname()[1]}"
        self._serving = f"http://127.0.0.1:{serving.getsockname()[1]}"
        threads = processors.variables(RUN_NETWORKS, settings.threads)
        environment = child_environment({**settings.environment(), **threads, "PNC_SERVING_URL": self._serving})
        self.children = [
            Child("serving", python("app.serving", str(serving.fileno())), environment, [serving]),
            Child("worker", python("workers.embedded"), environment),
            Child("api", python("app.api", str(api.fileno())), environment, [api]),
        ]

    def start(self) -> None:
        """Start the children, and wait until all are ready or a signal asks to end.

        Raises:
            UpError: a child does not start.
        """
        for child in self.children:
            child.start()
        deadline = time.monotonic() + STARTUP_SECONDS
        for name, url in (("api", self.url), ("serving", self._serving)):
            while not self._shutdown.requested and not _answers(f"{url}/readyz"):
                dead = [c.name for c in self.children if c.process is not None and c.process.poll() is not None]
                if (dead or time.monotonic() > deadline) and not self._shutdown.requested:
                    raise UpError(f"expected {name} to come up at {url}, got no answer; see the messages above")
                time.sleep(0.1)

    def watch(self) -> None:
        """Restart dead children until a signal asks to end."""
        pulse = Pulse(self._serving)
        while not self._shutdown.requested:
            if pulse.has_stopped():
                log.warning("serving no longer runs networks and is killed")
                self.children[0].kill()
            for child in self.children:
                child.revive()
            time.sleep(0.2)

    def stop(self) -> None:
        """End all children in order: the worker returns its job, and running requests are answered."""
        for child in self.children:
            child.stop()
        if self._shutdown.immediate:  # the signal came while a child was starting
            self.kill()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for child in self.children:
                child.join(deadline)
        except KeyboardInterrupt:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill all children. A running job continues when its lease has expired; running requests fail."""
        for child in self.children:
            child.kill()


def up(settings: Settings, ready: Callable[[str], None]) -> bool:
    """Run the embedded service until a signal asks it to end.

    Args:
        settings: Settings of the service.
        ready: Called with the service's URL when the service is ready.

    Returns:
        Whether the service ended in order; False: a further Ctrl-C ended it at once.

    Raises:
        UpError: the service cannot be started.
    """
    shutdown = Shutdown()
    shutdown.listen()
    with running(settings, shutdown) as service:
        if not shutdown.requested:
            ready(service.url)
        service.watch()
    return not shutdown.immediate


def _lock(stack: ExitStack, data_dir: Path) -> None:
    try:
        stack.enter_context(only_one(data_dir))
    except Misconfigured as error:
        raise UpError(str(error)) from None


def _with_own_key(settings: Settings) -> Settings:
    """The settings with a new internal key if they have none.

    Raises:
        UpError: other machines could use the service without keys.
    """
    if settings.internal_key is None:
        settings = settings.model_copy(update={"internal_key": secrets.token_urlsafe(32)})
    try:
        check_exposure(settings)
    except Misconfigured as error:
        raise UpError(str(error)) from None
    return settings


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UpError(f"expected {host}:{port} to be free, got {error.strerror}; choose another with --port") from None


def prepare(settings: Settings, *, forget_secrets: bool = False) -> None:
    """Update schema, file permissions and encrypted secrets before the children start, where an error is still visible.

    Args:
        settings: Settings of the service.
        forget_secrets: Replace secrets that no key decrypts.

    Raises:
        UpError: an update fails.
    """
    permissions.mend(settings, deep=True)
    try:
        zoo = open_zoo(settings)
    except Misconfigured as error:
        raise UpError(str(error)) from None
    try:
        migrate(zoo.database)
        seal_all(zoo, forget=forget_secrets)
    except Misconfigured as error:
        raise UpError(str(error)) from None
    except SQLAlchemyError as error:
        raise UpError(f"expected a database that can be migrated, got: {error}") from None
    finally:
        zoo.close()


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    return False
