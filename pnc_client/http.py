"""Requests: retries that are safe, pages as iterators, problem documents as exceptions."""

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from pnc_client.errors import ApiError, ClientError, InvalidName, ServiceUnreachable

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")
LONGEST_WAIT = 10.0
"""Seconds; who says that it takes longer is believed, and not asked again."""
_BUSY = frozenset({429, 502, 503, 504})


class Busy(ApiError):
    """An answer that asks to come back soon.

    Args:
        status: HTTP status.
        problem: The problem document.
        seconds: When to come back, if it says so.
    """

    def __init__(self, status: int, problem: dict[str, Any], seconds: float | None) -> None:
        super().__init__(status, problem)
        self.seconds = seconds


class _Gone(ApiError):
    """There is no such thing, perhaps since an attempt before has removed it."""


PASSING = (Busy, httpx.TransportError)
"""Failures after which another attempt may succeed."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Http:
    """Sends requests and reads answers.

    Args:
        client: Knows the service's address.
        attempts: How often a request is sent at most.
        sleep: Waits some seconds, in place of `time.sleep`.
    """

    def __init__(
        self,
        client: httpx.Client,
        attempts: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.client = client
        self.attempts = attempts
        self.sleep = sleep

    def read(self, kind: type[T], answer: httpx.Response) -> T:
        """An answer as an object that knows this connection.

        Raises:
            ServiceUnreachable: it is no answer of the service's.
        """
        with self._reading(answer):
            return kind.model_validate(answer.json(), context=self)

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
            ServiceUnreachable: it did not answer, or its answer to a change that builds on a generation was lost.
        """
        all_headers = {key: value for key, value in (headers or {}).items() if value}
        if method == "POST":
            all_headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        query = {key: value for key, value in (params or {}).items() if value is not None}
        lost: list[Exception] = []

        def send() -> httpx.Response:
            options = {"json": json, "content": content, "params": query, "headers": all_headers}
            try:
                return checked(self.client.request(method, path, **options))
            except PASSING as error:
                if _may_be_done(error):
                    lost.append(error)
                raise

        try:
            return self.repeat(send)
        except ApiError as error:
            raise (_told(error, f"{method} {path}", lost[-1]) if lost else error) from None

    def get(self, kind: type[T], path: str, **params: Any) -> T:
        """GET one object."""
        return self.read(kind, self.request("GET", path, params=params))

    def post(self, kind: type[T], path: str, json: Any = None) -> T:
        """POST and read an object."""
        return self.read(kind, self.request("POST", path, json=json))

    def delete(self, path: str, headers: Mapping[str, str] | None = None) -> None:
        """DELETE; that it is gone already is no error where an attempt before may have taken it away."""
        try:
            self.request("DELETE", path, headers=headers)
        except _Gone:
            return

    def pages(self, kind: type[T], path: str, **params: Any) -> Iterator[T]:
        """All items of a list, page by page as they are needed."""
        after, more = None, True
        while more:
            answer = self.request("GET", path, params={"limit": 100, **params, "after": after})
            with self._reading(answer):
                page = answer.json()
                items = [kind.model_validate(item, context=self) for item in page["data"]]
                after, more = page["next_cursor"], page["has_more"]
            yield from items

    def repeat(self, send: Callable[[], R]) -> R:
        """What `send` returns, tried again while the service is busy or away.

        Raises:
            ApiError: the service answered with a problem document.
            ServiceUnreachable: it did not answer.
        """
        again = Retrying(
            retry=retry_if_exception_type(PASSING),
            stop=stop_after_attempt(self.attempts),
            wait=lambda state: _seconds(state.outcome.exception() if state.outcome else None, state.attempt_number),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return again(send)
        except httpx.TransportError as error:
            raise unreachable(self.client, error) from None

    def pause(self, error: Busy | httpx.TransportError, failures: int) -> None:
        """Wait before another attempt, as `repeat` does, for who counts failures since the last success.

        Args:
            error: Why the last attempt failed.
            failures: How many have failed in a row.

        Raises:
            ApiError: there were enough, and the service was busy.
            ServiceUnreachable: there were enough, and it did not answer.
        """
        if failures >= self.attempts:
            raise (error if isinstance(error, Busy) else unreachable(self.client, error)) from None
        self.sleep(_seconds(error, failures))

    @contextmanager
    def _reading(self, answer: httpx.Response) -> Iterator[None]:
        """What cannot be read, be it no JSON or JSON of another kind, was not said by the service."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            raise ServiceUnreachable(
                f"expected the service at {self.client.base_url}, got {answer.text!r:.80}; is the address right, and "
                "has the service this client's version?"
            ) from error


def _seconds(error: BaseException | None, failures: int) -> float:
    """What Retry-After says, else a growing time with some chance in it: not all clients come back at once."""
    if isinstance(error, Busy) and error.seconds is not None:
        return error.seconds
    return random.uniform(0, min(LONGEST_WAIT, 0.1 * 2 ** min(failures, 10)))  # noqa: S311


def path_of(*parts: str | int) -> str:
    """The path below `/v1` of what a caller names; every part is quoted and stays one.

    Raises:
        InvalidName: a part would lead elsewhere: an empty one, `.`, `..`, or one with a slash, backslash or percent.
    """
    for part in map(str, parts):
        # Servers take a path apart when it is unquoted again, so quoting saves none of these; the service refuses them.
        if part in ("", ".", "..") or any(character in part for character in "/\\%"):
            raise InvalidName(f"expected a name or an id, got {part!r}; take one from the service's lists")
    return "/v1/" + "/".join(quote(str(part), safe="@") for part in parts)


def unreachable(client: httpx.Client, error: Exception) -> ServiceUnreachable:
    """The error that says where nobody answered."""
    return ServiceUnreachable(f"expected the service at {client.base_url}, got {error!r}; is it running? Try `pnc up`")


def _may_be_done(error: Busy | httpx.TransportError) -> bool:
    """Whether the service may have done what it was asked for, though no answer says so."""
    return not isinstance(error, _NEVER_SENT) and not (isinstance(error, Busy) and error.status == 429)


def _told(error: ApiError, asked: str, lost: Exception) -> ClientError:
    """What a refusal means when an attempt before may have been done already."""
    if error.status == 404:
        return _Gone(error.status, error.problem)
    if error.status != 412:
        return error
    return ServiceUnreachable(
        f"expected an answer to {asked}, got {lost!r}; the generation has passed since, so the change may have been "
        "made: look, and repeat it if it was not"
    )


def checked(response: httpx.Response) -> httpx.Response:
    """The answer itself, when it is no error; its body is read.

    Raises:
        Busy: it asks to come back soon.
        ApiError: it is another problem document.
    """
    if response.is_success or response.status_code == 304:
        return response
    response.read()
    try:
        problem = response.json()
    except ValueError:
        problem = None
    status, document = response.status_code, problem if isinstance(problem, dict) else {"detail": response.text[:200]}
    after = response.headers.get("retry-after", "")
    seconds = float(after) if after.isdecimal() else None
    if status in _BUSY and (seconds is None or seconds <= LONGEST_WAIT):
        raise Busy(status, document, seconds)
    raise ApiError(status, document)
