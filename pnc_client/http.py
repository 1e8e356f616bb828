"""HTTP requests: safe retries, pages as iterators, problem documents as exceptions, objects that keep a connection."""

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, PrivateAttr
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from pnc_client.errors import ApiError, ClientError, InvalidName, ServiceUnreachable
from pnc_client.schemas.purges import Purge
from pnc_client.schemas.shapes import ResponseBody

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")
LONGEST_WAIT = 10.0
"""Seconds. A response whose Retry-After is longer is an error at once: the client does not wait for it."""
_BUSY = frozenset({429, 502, 503, 504})


class Busy(ApiError):
    """The service asks the client to retry soon.

    Args:
        status: HTTP status.
        problem: The problem document.
        seconds: The value of Retry-After; None: the header is missing.
    """

    def __init__(self, status: int, problem: dict[str, Any], seconds: float | None) -> None:
        super().__init__(status, problem)
        self.seconds = seconds


class _Gone(ApiError):
    """The resource is not found, and an earlier attempt of the same request may have deleted it."""


RETRYABLE = (Busy, httpx.TransportError)
"""Failures after which another attempt may succeed."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Http:
    """Sends requests and reads responses.

    Args:
        client: An httpx client with the service's address.
        attempts: How often a request is sent at most.
        sleep: Waits a number of seconds; tests pass a function that returns at once.
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

    def read(self, kind: type[T], response: httpx.Response) -> T:
        """The response's body as an object; a `Connected` object keeps this connection.

        Raises:
            ServiceUnreachable: the body is not JSON of this kind, so another server has answered.
        """
        with self._reading(response):
            return kind.model_validate(response.json(), context=self)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        files: Sequence[tuple[str, tuple[str, bytes, str]]] | None = None,
    ) -> httpx.Response:
        """Send a request, and send it again while the service is busy or unreachable; a POST has an Idempotency-Key.

        Raises:
            ApiError: the service answered with a problem document.
            ServiceUnreachable: the service did not answer, or the response to a change with If-Match was lost.
        """
        all_headers = {key: value for key, value in (headers or {}).items() if value}
        if method == "POST":
            all_headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        query = _without_none(params or {})
        lost: list[Exception] = []

        def send() -> httpx.Response:
            options = {"json": json, "content": content, "files": files, "params": query, "headers": all_headers}
            try:
                return checked(self.client.request(method, path, **options))
            except RETRYABLE as error:
                if _may_be_done(error):
                    lost.append(error)
                raise

        try:
            return self.repeat(send)
        except ApiError as error:
            raise (_after_lost_response(error, f"{method} {path}", lost[-1]) if lost else error) from None

    def get(self, kind: type[T], path: str, **params: Any) -> T:
        """GET one object."""
        return self.read(kind, self.request("GET", path, params=params))

    def post(self, kind: type[T], path: str, json: Any = None, **params: Any) -> T:
        """POST and read the object that comes back."""
        return self.read(kind, self.request("POST", path, json=json, params=params))

    def put(self, kind: type[T], path: str, json: Any) -> T:
        """PUT and read the object that comes back."""
        return self.read(kind, self.request("PUT", path, json=json))

    def patch(self, kind: type[T], path: str, fields: Mapping[str, Any]) -> T:
        """PATCH and read the object that comes back; fields that are None are not sent."""
        return self.read(kind, self.request("PATCH", path, json=_without_none(fields)))

    def delete(self, path: str, headers: Mapping[str, str] | None = None) -> None:
        """DELETE; a 404 is no error when an earlier attempt may have deleted the resource."""
        try:
            self.request("DELETE", path, headers=headers)
        except _Gone:
            return

    def purge(self, path: str, *, dry_run: bool) -> Purge:
        """Remove the archived resource at a path permanently; with `dry_run` only list the rows and bytes to remove."""
        return self.read(Purge, self.request("GET" if dry_run else "POST", f"{path}/purge"))

    def pages(self, kind: type[T], path: str, **params: Any) -> Iterator[T]:
        """All items of a list; each page is requested when its first item is needed."""
        after, more = None, True
        while more:
            response = self.request("GET", path, params={"limit": 100, **params, "after": after})
            with self._reading(response):
                page = response.json()
                items = [kind.model_validate(item, context=self) for item in page["data"]]
                after, more = page["next_cursor"], page["has_more"]
            yield from items

    def repeat(self, send: Callable[[], R]) -> R:
        """The result of `send`, which is called again while the service is busy or unreachable.

        Raises:
            ApiError: the service answered with a problem document.
            ServiceUnreachable: the service did not answer.
        """
        again = Retrying(
            retry=retry_if_exception_type(RETRYABLE),
            stop=stop_after_attempt(self.attempts),
            wait=lambda state: _seconds(state.outcome.exception() if state.outcome else None, state.attempt_number),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return again(send)
        except httpx.TransportError as error:
            raise _unreachable(self.client, error) from None

    def pause(self, error: Busy | httpx.TransportError, failures: int) -> None:
        """Wait before another attempt as `repeat` does, for a caller that counts its own failures.

        Args:
            error: Why the last attempt failed.
            failures: Number of failed attempts since the last success.

        Raises:
            ApiError: `failures` has reached the limit, and the service was busy.
            ServiceUnreachable: `failures` has reached the limit, and the service did not answer.
        """
        if failures >= self.attempts:
            raise (error if isinstance(error, Busy) else _unreachable(self.client, error)) from None
        self.sleep(_seconds(error, failures))

    @contextmanager
    def _reading(self, response: httpx.Response) -> Iterator[None]:
        """Turn a body that is not the expected JSON into `ServiceUnreachable`: another server has answered."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            raise ServiceUnreachable(
                f"expected the service at {self.client.base_url}, got {response.text!r:.80}; is the address right, and "
                "has the service this client's version?"
            ) from error


class Connected(ResponseBody):
    """An object that keeps the connection over which it was fetched, so that `job.wait()` works.

    The object holds the state of one moment; its methods return a newer object.
    """

    _connection: Http | None = PrivateAttr(None)

    def model_post_init(self, context: Any, /) -> None:
        """Keep the connection, which `Http.read` passes as the context of validation."""
        self._connection = context

    @property
    def http(self) -> Http:
        """The connection over which the object was fetched.

        Raises:
            ValueError: the object was made by hand.
        """
        if self._connection is None:
            raise ValueError(f"expected an object that a client fetched, got a {type(self).__name__} made by hand")
        return self._connection


def path_of(*parts: str | int) -> str:
    """A path below `/v1`; each part is quoted as one segment.

    Raises:
        InvalidName: a part is empty, `.` or `..`, or holds a slash, a backslash or a percent sign.
    """
    for part in map(str, parts):
        # Quoting does not help: servers split a path after unquoting it, and the service refuses these characters.
        if part in ("", ".", "..") or any(character in part for character in "/\\%"):
            raise InvalidName(f"expected a name or an id, got {part!r}; take one from the service's lists")
    return "/v1/" + "/".join(quote(str(part), safe="@") for part in parts)


def checked(response: httpx.Response) -> httpx.Response:
    """The response itself if its status is a success; otherwise its body is read and raised as an error.

    Raises:
        Busy: the service asks the client to retry soon.
        ApiError: any other problem document.
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


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _seconds(error: BaseException | None, failures: int) -> float:
    """Retry-After, or else a growing random time, so that many clients do not retry at the same moment."""
    if isinstance(error, Busy) and error.seconds is not None:
        return error.seconds
    return random.uniform(0, min(LONGEST_WAIT, 0.1 * 2 ** min(failures, 10)))  # noqa: S311


def _unreachable(client: httpx.Client, error: Exception) -> ServiceUnreachable:
    return ServiceUnreachable(f"expected the service at {client.base_url}, got {error!r}; is it running? Try `pnc up`")


def _may_be_done(error: Busy | httpx.TransportError) -> bool:
    """Whether the service may have carried out the request although its response is missing."""
    return not isinstance(error, _NEVER_SENT) and not (isinstance(error, Busy) and error.status == 429)


def _after_lost_response(error: ApiError, request: str, lost: Exception) -> ClientError:
    """The error to raise for a refusal when an earlier attempt of the request may have succeeded."""
    if error.status == 404:
        return _Gone(error.status, error.problem)
    if error.status != 412:
        return error
    return ServiceUnreachable(
        f"expected a response to {request}, got {lost!r}; the generation has changed since, so the change may "
        "have been made: look at the deployment, and repeat the request if it was not made"
    )
