"""Who may come in: a key from the header or the browser's cookie, its workspace, and how much at once.

Without `PNC_REQUIRE_KEYS` there are no keys, and the service answers on this machine's own addresses alone.
"""

import ipaddress
import secrets
import threading
import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from app.access import keys
from app.access.keys import ANYBODY, COOKIE, Caller
from app.errors import Forbidden, Misconfigured, TooMany, Unauthenticated
from app.settings import Settings
from app.zoo import Zoo

OPERATOR = "operator"
"""What tells of all workspaces; with keys, only the service's own secret opens it."""
MINUTE = 60.0
_SCHEME = "bearer "
_MANY = 10_000
"""Keys whose requests are counted at most; then those that have not asked for a minute are forgotten."""


class Admission:
    """Tells who asks, and turns away who may not.

    Args:
        settings: Whether there are keys.
        zoo: Where they are.
        clock: Seconds that only go forward, for tests.
    """

    def __init__(self, settings: Settings, zoo: Zoo, clock: Callable[[], float] = time.monotonic) -> None:
        check_exposure(settings)
        self._settings = settings
        self._zoo = zoo
        self._pace = Pace(clock)

    async def __call__(self, connection: HTTPConnection, scope: str | None) -> Caller:
        """Who asks, if they may do what needs this scope; None: any key may.

        Raises:
            Unauthenticated: there is no key, or none that is in force.
            Forbidden: the key lacks the scope, or this is no machine of ours.
            TooMany: more requests came in a minute than the workspace allows a key.
        """
        if scope == OPERATOR and self._settings.require_keys:
            return self._operator(connection)
        caller = await self._caller(connection)
        connection.scope.setdefault("state", {})["caller"] = caller
        if scope not in (None, OPERATOR) and not caller.may(scope):
            raise Forbidden(
                f"expected a key with the scope {scope!r}, got one with {sorted(caller.scopes)}; use another"
            )
        if caller.requests_per_minute is not None:
            self._pace.check(caller.key_id or "", caller.requests_per_minute)
        return caller

    def _operator(self, connection: HTTPConnection) -> Caller:
        given, own = presented(connection) or "", self._settings.internal_key or ""
        if not secrets.compare_digest(given.encode(), own.encode()):
            raise Unauthenticated("expected the service's own secret, got another; see PNC_INTERNAL_KEY")
        return ANYBODY

    async def _caller(self, connection: HTTPConnection) -> Caller:
        if not self._settings.require_keys:
            self._check_address(connection)
            return ANYBODY
        secret = presented(connection)
        if secret is None:
            raise Unauthenticated(
                "expected `Authorization: Bearer pnc_...`, got no key; make one with `pnc keys create`"
            )
        return await run_in_threadpool(self._authenticate, secret)

    def _authenticate(self, secret: str) -> Caller:
        with self._zoo.database.read() as session:
            return keys.authenticate(session, secret)

    def _check_address(self, connection: HTTPConnection) -> None:
        """Whatever a server was told to listen on: nobody answers another machine without keys."""
        host = (connection.scope.get("server") or ("",))[0]
        if not (self._settings.published_on_loopback or is_loopback(host)):
            raise Forbidden(
                f"expected a request to loopback, got one to {host}; set PNC_REQUIRE_KEYS=true and use a key"
            )


class Pace:
    """Counts requests: every key has a bucket that holds a minute's worth and fills steadily.

    Args:
        clock: Seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """What is left, and when that was so."""
        self._lock = threading.Lock()

    def check(self, key: str, per_minute: int) -> None:
        """Take one request out of a key's bucket.

        Raises:
            TooMany: it is empty.
        """
        now = self._clock()
        with self._lock:
            if len(self._buckets) > _MANY:
                self._buckets = {k: b for k, b in self._buckets.items() if now - b[1] < MINUTE}
            left, since = self._buckets.get(key, (float(per_minute), now))
            left = min(float(per_minute), left + (now - since) * per_minute / MINUTE)
            self._buckets[key] = (left - 1 if left >= 1 else left), now
        if left < 1:
            wait = int((1 - left) * MINUTE / per_minute) + 1
            raise TooMany(f"expected at most {per_minute} requests a minute, got more; come again in {wait} s", wait)


def presented(connection: HTTPConnection) -> str | None:
    """The key that a request brings: a program's in the header, a browser's in its cookie."""
    header = connection.headers.get("authorization")
    if header is not None:
        return header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else ""
    return connection.cookies.get(COOKIE)


def check_exposure(settings: Settings) -> None:
    """See that other machines cannot reach a service that asks nobody for a key.

    Raises:
        Misconfigured: they could.
    """
    if settings.require_keys and settings.internal_key is None:
        raise Misconfigured(
            "PNC_INTERNAL_KEY: expected a secret of 32 characters or more beside PNC_REQUIRE_KEYS, got none; "
            "give the API and serving processes the same one"
        )
    if settings.is_loopback or settings.require_keys or settings.published_on_loopback:
        return
    raise Misconfigured(
        f"PNC_HOST: expected loopback while there are no keys, got {settings.host}; set PNC_REQUIRE_KEYS=true, "
        "make a key with `pnc keys create --here`, and listen again"
    )


def is_loopback(host: str | None) -> bool:
    """Whether an address is this machine's own; a socket that is a file has none and is."""
    if not host or host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
