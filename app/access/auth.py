"""Authentication of a request by the key in its header or cookie, and the limit of requests a minute.

Without `PNC_REQUIRE_KEYS` no key is needed, and the service answers only on this machine's loopback addresses.
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
"""Scope of endpoints that show all workspaces. If keys are required, they need the secret PNC_INTERNAL_KEY."""
MINUTE = 60.0
_SCHEME = "bearer "
_MAX_BUCKETS = 10_000
"""With more buckets than this, those of keys that sent no request for a minute are deleted."""


class Admission:
    """Identifies the caller of a request, and refuses callers without permission.

    Args:
        settings: Says whether keys are required.
        zoo: The zoo whose database holds the keys.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, settings: Settings, zoo: Zoo, clock: Callable[[], float] = time.monotonic) -> None:
        check_exposure(settings)
        self._settings = settings
        self._zoo = zoo
        self._pace = Pace(clock)

    async def __call__(self, connection: HTTPConnection, scope: str | None) -> Caller:
        """The caller of a request.

        Args:
            connection: The request, or a connection of a page.
            scope: The scope that the request needs; None: every valid key is enough.

        Raises:
            Unauthenticated: the request has no key, or the key is not valid.
            Forbidden: the key lacks the scope, or no keys are required and the request is not to loopback.
            TooMany: the key has sent more requests a minute than its workspace allows.
        """
        if scope == OPERATOR and self._settings.require_keys:
            return self._operator(connection)
        caller = await self._caller(connection)
        connection.scope.setdefault("state", {})["caller"] = caller
        if scope not in (None, OPERATOR) and not caller.may(scope):
            raise Forbidden(
                f"expected a key with the scope {scope!r}, got one with {sorted(caller.scopes)}; use another key"
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
        """Refuse other machines while no keys are required, even if the server listens on other addresses."""
        host = (connection.scope.get("server") or ("",))[0]
        if not (self._settings.published_on_loopback or is_loopback(host)):
            raise Forbidden(
                f"expected a request to loopback, got one to {host}; set PNC_REQUIRE_KEYS=true and use a key"
            )


class Pace:
    """Limits requests with a token bucket for each key; a full bucket holds the requests of one minute.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """By key id: the requests left, and the time at which they were counted."""
        self._lock = threading.Lock()

    def check(self, key: str, per_minute: int) -> None:
        """Take one request out of a key's bucket.

        Args:
            key: Id of the key.
            per_minute: Requests a minute that the workspace allows.

        Raises:
            TooMany: the bucket is empty.
        """
        now = self._clock()
        with self._lock:
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets = {k: b for k, b in self._buckets.items() if now - b[1] < MINUTE}
            left, since = self._buckets.get(key, (float(per_minute), now))
            left = min(float(per_minute), left + (now - since) * per_minute / MINUTE)
            self._buckets[key] = (left - 1 if left >= 1 else left), now
        if left < 1:
            wait = int((1 - left) * MINUTE / per_minute) + 1
            raise TooMany(f"expected at most {per_minute} requests a minute, got more; try again in {wait} s", wait)


def presented(connection: HTTPConnection) -> str | None:
    """The key in a request: from the `Authorization` header, or else from the browser's cookie."""
    header = connection.headers.get("authorization")
    if header is not None:
        return header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else ""
    return connection.cookies.get(COOKIE)


def check_exposure(settings: Settings) -> None:
    """Check that a service without keys listens only on loopback, and that a service with keys has a secret.

    Raises:
        Misconfigured: other machines could reach the service without a key, or PNC_INTERNAL_KEY is missing.
    """
    if settings.require_keys and settings.internal_key is None:
        raise Misconfigured(
            "PNC_INTERNAL_KEY: expected a secret of 32 characters or more with PNC_REQUIRE_KEYS=true, got none; "
            "give the API and the serving processes the same secret"
        )
    if settings.is_loopback or settings.require_keys or settings.published_on_loopback:
        return
    raise Misconfigured(
        f"PNC_HOST: expected loopback while no keys are required, got {settings.host}; set PNC_REQUIRE_KEYS=true, "
        "make a key with `pnc keys create --here`, and start again"
    )


def is_loopback(host: str | None) -> bool:
    """Whether an address is a loopback address. A Unix socket has no address and counts as loopback."""
    if not host or host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
