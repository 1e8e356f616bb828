"""`pnc up`: the embedded service, as one command.

One supervisor and three children: the API, the serving process and a worker.
They meet only in the database, the store and on loopback, just as they would
on three machines. A child that dies is started again; they all end with the
supervisor, even when it is killed.
"""

import fcntl
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
from app.process import permissions, processors, signals
from app.process.children import python
from app.process.lifeline import child_environment
from app.process.pulse import Pulse
from app.settings import Settings
from app.zoo import open_zoo

log = logging.getLogger(__name__)
STARTUP_SECONDS = 60
STOP_SECONDS = 15
BACKOFF_SECONDS = (0.2, 1, 2, 5, 10)
RUN_NETWORKS = 2
"""Children that do, side by side: serving, and the worker with its one job."""


class UpError(Exception):
    """The service cannot be started; the message says what to do."""


@dataclass
class Child:
    """A process that is kept running."""

    name: str
    command: list[str]
    environment: dict[str, str]
    sockets: list[socket.socket] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    started: float = 0.0

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches only the supervisor."""
        self.started = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own modules, no shell
            self.command,
            env=self.environment,
            pass_fds=[s.fileno() for s in self.sockets],
            start_new_session=True,
        )

    def revive(self) -> None:
        """Start it again if it has died and the pause after its last deaths is over."""
        assert self.process is not None
        if self.process.poll() is None:
            return
        if time.monotonic() - self.started > 60:
            self.deaths = 0
        pause = BACKOFF_SECONDS[min(self.deaths, len(BACKOFF_SECONDS) - 1)]
        if time.monotonic() - self.started >= pause:
            log.warning("%s ended with %s; starting it again", self.name, self.process.returncode)
            self.deaths += 1
            self.start()

    def stop(self) -> None:
        """Ask it to end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def join(self, deadline: float) -> None:
        """Wait for its end until the deadline, then kill it."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("%s did not end in time and is killed", self.name)
            self.kill()
            self.process.wait()

    def kill(self) -> None:
        """End it at once, and all that it has started."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


class Wish:
    """What signals have asked of the service."""

    def __init__(self) -> None:
        # Plain flags: a signal is handled in the thread that waits, where it could wait for an event's lock for ever.
        self.end = self.hurry = False
        self.service: Service | None = None

    def listen(self) -> None:
        """Follow the signals of this process from now on."""
        signals.on_signals(self._end, self._hurry)

    def _end(self) -> None:
        self.end = True

    def _hurry(self) -> None:
        self.hurry = True
        if self.service is None:  # nothing runs yet
            raise KeyboardInterrupt
        self.service.kill()


@contextmanager
def running(settings: Settings, wish: Wish | None = None) -> Iterator["Service"]:
    """The embedded service, ready to be used; it ends with the block.

    Args:
        settings: Of the whole service.
        wish: Once it is to end, its start is given up.

    Raises:
        UpError: the port or the data directory is in use, a part does not come up, or strangers could use it.
    """
    with ExitStack() as stack:
        settings = _with_own_key(settings)
        permissions.begin(settings)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_only_one(settings.data_dir))
        door, back = (stack.enter_context(s) for s in (_listen(settings.host, settings.port), _listen("127.0.0.1", 0)))
        prepare(settings)
        service = Service(settings, door, back, wish or Wish())
        stack.callback(service.stop)
        service.start()
        yield service


class Service:
    """The running children.

    Args:
        settings: Of the whole service.
        door: Socket of the API.
        back: Loopback socket of the serving process.
        wish: What signals have asked of it.
    """

    def __init__(self, settings: Settings, door: socket.socket, back: socket.socket, wish: Wish) -> None:
        self._wish, wish.service = wish, self
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"http://{host}:{door.getsockname()[1]}"
        self._serving = f"http://127.0.0.1:{back.getsockname()[1]}"
        threads = processors.variables(RUN_NETWORKS, settings.threads)
        environment = child_environment({**settings.environment(), **threads, "PNC_SERVING_URL": self._serving})
        self.children = [
            Child("serving", python("app.serving", str(back.fileno())), environment, [back]),
            Child("worker", python("workers.embedded"), environment),
            Child("api", python("app.api", str(door.fileno())), environment, [door]),
        ]

    def start(self) -> None:
        """Start the children and wait until the API answers and everything wanted is served, or it is to end.

        Raises:
            UpError: one of them does not come up.
        """
        for child in self.children:
            child.start()
        deadline = time.monotonic() + STARTUP_SECONDS
        for name, url in (("api", self.url), ("serving", self._serving)):
            while not self._wish.end and not _answers(f"{url}/readyz"):
                dead = [c.name for c in self.children if c.process is not None and c.process.poll() is not None]
                if (dead or time.monotonic() > deadline) and not self._wish.end:
                    raise UpError(f"expected {name} to come up at {url}, got no answer; see the messages above")
                time.sleep(0.1)

    def watch(self) -> None:
        """Keep the children alive until the service is to end."""
        pulse = Pulse(self._serving)
        while not self._wish.end:
            if pulse.has_stopped():
                log.warning("serving runs no networks any more and is killed")
                self.children[0].kill()
            for child in self.children:
                child.revive()
            time.sleep(0.2)

    def stop(self) -> None:
        """End all children: the worker gives its job back, requests in flight are answered; when hurried, at once."""
        for child in self.children:
            child.stop()
        if self._wish.hurry:  # just while one was being started
            self.kill()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for child in self.children:
                child.join(deadline)
        except KeyboardInterrupt:
            self.kill()
            raise

    def kill(self) -> None:
        """End all children at once: a job is taken up again when its lease has run out, requests are lost."""
        for child in self.children:
            child.kill()


def up(settings: Settings, ready: Callable[[str], None]) -> bool:
    """Run the embedded service until a signal asks it to end.

    Args:
        settings: Of the whole service.
        ready: Called with the URL once it can be used.

    Returns:
        Whether it ended in order, and not at once because Ctrl-C was pressed again.

    Raises:
        UpError: it cannot be started.
    """
    wish = Wish()
    wish.listen()
    with running(settings, wish) as service:
        if not wish.end:
            ready(service.url)
        service.watch()
    return not wish.hurry


def _with_own_key(settings: Settings) -> Settings:
    """The settings with a secret that only this service's processes know, if strangers cannot use it without keys.

    Raises:
        UpError: they could.
    """
    if settings.internal_key is None:
        settings = settings.model_copy(update={"internal_key": secrets.token_urlsafe(32)})
    try:
        check_exposure(settings)
    except Misconfigured as error:
        raise UpError(str(error)) from None
    return settings


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data directory's lock; the file stays, the lock ends with the process."""
    with (data_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UpError(f"expected {data_dir} to be free, got one in use by another `pnc up`; end it first") from None
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UpError(f"expected {host}:{port} to be free, got {error.strerror}; choose another with --port") from None


def prepare(settings: Settings, *, forget_secrets: bool = False) -> None:
    """Open everything once here, where a message is still seen, and bring schema, permissions and secrets up to date.

    Args:
        settings: Of the whole service.
        forget_secrets: Replace secrets that no key decrypts.

    Raises:
        UpError: one of these is not possible.
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
        raise UpError(f"expected a database that can be brought up to date, got: {error}") from None
    finally:
        zoo.close()


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    return False
