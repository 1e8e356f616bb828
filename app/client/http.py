"""Requests: retries that are safe, pages as iterators, problem documents as exceptions."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from app.client.errors import ApiError, InvalidName, ServiceUnreachable

T = TypeVar("T", bound=BaseModel)
LONGEST_WAIT = 10.0
_BUSY = frozenset({429, 502, 503, 504})


class _Busy(Exception):
    """An answer that asks to come back later."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class Http:
    """Sends requests and reads answers.

    Args:
        client: Knows the service's address.
        attempts: How often a request is sent at most.
        sleep: Waits some seconds, in place of `time.sleep`.
        owner: The client that answers shall know, so that `job.wait()` works.
    """

    def __init__(
        self,
        client: httpx.Client,
        attempts: int = 4,
        sleep: Callable[[float], None] = time.sleep,
        owner: object = None,
    ) -> None:
        self.client = client
        self.attempts = attempts
        self.sleep = sleep
        self.owner = owner

    def read(self, kind: type[T], data: object) -> T:
        """An answer as an object that knows the client it came from."""
        return kind.model_validate(data, context=self.owner)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request, again when the service is busy or away; a POST carries an Idempotency-Key.

        Raises:
            ApiError: the service answered with a problem document.
            ServiceUnreachable: it did not answer.
        """
        all_headers = {key: value for key, value in (headers or {}).items() if value}
        if method == "POST":
            all_headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        query = {key: value for key, value in (params or {}).items() if value is not None}

        def send() -> httpx.Response:
            response = self.client.request(method, path, json=json, content=content, params=query, headers=all_headers)
            if response.status_code in _BUSY:
                raise _Busy(response)
            return response

        return checked(self._repeat(send))

    def get(self, kind: type[T], path: str, **params: Any) -> T:
        """GET one object."""
        return self.read(kind, self.request("GET", path, params=params).json())

    def post(self, kind: type[T], path: str, json: Any = None) -> T:
        """POST and read an object."""
        return self.read(kind, self.request("POST", path, json=json).json())

    def pages(self, kind: type[T], path: str, **params: Any) -> Iterator[T]:
        """All items of a list, page by page as they are needed."""
        after: str | None = None
        while True:
            page = self.request("GET", path, params={"limit": 100, **params, "after": after}).json()
            yield from (self.read(kind, item) for item in page["data"])
            after = page["next_cursor"]
            if not page["has_more"]:
                return

    def _repeat(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        retrying = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=_pause,
            retry=retry_if_exception_type((_Busy, httpx.TransportError)),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return retrying(send)
        except _Busy as error:
            return error.response
        except httpx.TransportError as error:
            raise unreachable(self.client, error) from None


def path_of(*parts: str | int) -> str:
    """The path below `/v1` of what a caller names; every part is quoted and stays one.

    Raises:
        InvalidName: a part would lead elsewhere: an empty one, `.`, `..`, or one with a slash.
    """
    for part in map(str, parts):
        # Servers take a path apart when it is unquoted again, so a slash cannot be saved by quoting it.
        if part in ("", ".", "..") or "/" in part:
            raise InvalidName(f"expected a name or an id, got {part!r}; take one from the service's lists")
    return "/v1/" + "/".join(quote(str(part), safe="@") for part in parts)


def unreachable(client: httpx.Client, error: Exception) -> ServiceUnreachable:
    """The error that says where nobody answered."""
    return ServiceUnreachable(f"expected the service at {client.base_url}, got {error!r}; is it running? Try `pnc up`")


def checked(response: httpx.Response) -> httpx.Response:
    """The answer itself, when it is no error; its body is read.

    Raises:
        ApiError: it is a problem document.
    """
    if response.is_success or response.status_code == 304:
        return response
    response.read()
    try:
        problem = response.json()
    except ValueError:
        problem = None
    raise ApiError(response.status_code, problem if isinstance(problem, dict) else {"detail": response.text[:200]})


def _pause(state: RetryCallState) -> float:
    """What Retry-After says, else a growing time with some chance in it."""
    error = state.outcome.exception() if state.outcome else None
    after = error.response.headers.get("retry-after", "") if isinstance(error, _Busy) else ""
    if after.isdigit():
        return min(float(after), LONGEST_WAIT)
    return wait_random_exponential(multiplier=0.2, max=LONGEST_WAIT)(state)
