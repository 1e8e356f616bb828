"""Translation of errors into problem documents (RFC 9457): the only place in the API."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from reprlib import Repr
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors
from app.api.bodies import Unreadable
from app.api.documented import MEDIA_TYPE
from app.api.middleware import answers_head
from app.api.protocol import is_protocol_path
from app.process import troubles
from app.web import nowhere
from pnc_client.schemas.problems import Fault, ProblemDocument

log = logging.getLogger(__name__)
_complain = troubles.Complaints(log)

# The first matching class decides, so a subclass comes before its parent.
_STATUSES: tuple[tuple[type[errors.ZooError], int], ...] = (
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Invalid, 422),
    (errors.TooLarge, 413),
    (errors.StaleRevision, 412),
    (errors.TooMany, 429),
    (errors.LeaseLost, 409),
    (errors.NotEnoughMemory, 503),
    (errors.NoSpace, 507),
    (errors.StoreUnavailable, 503),
    (errors.Loading, 503),
    (errors.Misconfigured, 503),
)
_RETRIED = (errors.StoreUnavailable, errors.Loading)
RETRY_SECONDS = 2
"""`Retry-After` of a 503 answer."""
MOST_FAULTS = 100
"""Most faults in a problem document."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_BRIEF = Repr()
_BRIEF.maxlevel = 4
_BRIEF.maxtuple = _BRIEF.maxlist = _BRIEF.maxdict = 50
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 400
_CODES = {413: "too_large", 416: "range_not_satisfiable"}


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(errors.ZooError, _zoo_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Unreadable, _large_body_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(IntegrityError, _race_lost)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    for away in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(away, _database_away)
    app.add_exception_handler(OSError, _system_error)
    app.add_middleware(UnexpectedErrors)


def respond(
    scope: Any,
    status: int,
    code: str,
    detail: str,
    faults: list[Fault] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Answer with a problem document.

    Args:
        scope: The request's ASGI scope.
        status: HTTP status.
        code: Stable, machine-readable code.
        detail: Message: expected, got, what to do.
        faults: Single faults of the request.
        headers: Further headers.
    """
    request_id = scope.get("state", {}).get("request_id", "")
    document = ProblemDocument(
        type=f"urn:pnc:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
        errors=faults or [],
    )
    all_headers = {"X-Request-ID": request_id, **(headers or {})}
    return Response(document.model_dump_json(), status, all_headers, media_type=MEDIA_TYPE)


async def _zoo_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ZooError)
    if isinstance(error, errors.StoreUnavailable | errors.Misconfigured):
        _complain("a request cannot be answered", error)
    return refuse(request.scope, error)


def status_of(kind: type[errors.ZooError]) -> int:
    """HTTP status of an error of the zoo."""
    return next((status for known, status in _STATUSES if issubclass(kind, known)), 500)


def refuse(scope: Any, error: errors.ZooError) -> Response:
    """Answer with an error of the zoo, in the format of the API or of the inference protocol."""
    status = status_of(type(error))
    if is_protocol_path(scope["path"]):
        return JSONResponse({"error": str(error)}, status, _hints(error))
    problems = error.problems if isinstance(error, errors.Invalid | errors.InUse) else []
    faults = [Fault.model_validate(problem) for problem in problems]
    return respond(scope, status, error.code, str(error), faults, _hints(error))


def _hints(error: errors.ZooError) -> dict[str, str] | None:
    """Headers that tell a client how and when to retry."""
    if isinstance(error, errors.Unauthenticated):
        return {"WWW-Authenticate": 'Bearer realm="pnc"'}
    if isinstance(error, errors.TooMany):
        return {"Retry-After": str(error.seconds)}
    may_retry = isinstance(error, _RETRIED) and not isinstance(error, errors.NoSpace)
    return {"Retry-After": str(RETRY_SECONDS)} if may_retry else None


async def _disconnected(request: Request, error: Exception) -> Response:
    """The client has disconnected before the end of its body, and will not read the answer."""
    _log_disconnect(request.scope)
    return respond(request.scope, 400, "aborted", "expected the whole body, got an earlier end; send it again")


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _faulty(request, error.errors())


async def _large_body_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unreadable)
    return _faulty(request, error.errors)


def _faulty(request: Request, found: Sequence[Any]) -> Response:
    """Answer 422 with the first faults of a request."""
    faults = [Fault(pointer=_pointer(e), code=e["type"], detail=_detail(e)) for e in found[:MOST_FAULTS]]
    detail = "; ".join(f"{f.pointer}: {f.detail}" if f.pointer else f.detail for f in faults[:5])
    return respond(request.scope, 422, "invalid", detail, faults)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, headers = error.status_code, dict(error.headers or {})
    if status == 400:  # only FastAPI raises 400, for a body that it cannot read
        return _unreadable(request, error)
    if status == 405:
        headers["Allow"] = _allowed(request)
    if status == 404 and getattr(request.app.state, "pages", None) is not None and nowhere.wants_page(request):
        return nowhere.page(request)
    path = f"{request.method} {request.url.path}"[:200]
    texts = {
        404: f"expected a path of this API, got {path}; see /openapi.json",
        405: f"expected one of {headers.get('Allow')} here, got {path}; see /openapi.json",
    }
    code = _CODES.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_"))
    detail = texts.get(status, str(error.detail)) if error.detail == HTTPStatus(status).phrase else str(error.detail)
    if is_protocol_path(request.url.path):
        return JSONResponse({"error": detail}, status, headers)
    return respond(request.scope, status, code, detail, headers=headers)


def _unreadable(request: Request, error: HTTPException) -> Response:
    detail = _expected_object(f"one that cannot be read ({type(error.__cause__).__name__})")
    return respond(request.scope, 422, "invalid", detail, [Fault(pointer="", code="json_invalid", detail=detail)])


def _allowed(request: Request) -> str:
    """Methods of all routes of the request's path, as RFC 9110 wants in `Allow`. Starlette names only the first route.

    For a path that the OpenAPI document lists literally, routes that match by an id in the last part do not count.
    """
    described = request.app.openapi()["paths"] if request.app.openapi_url else {}
    if request.url.path in described:
        found = {m for m in _METHODS if m.lower() in described[request.url.path]}
    else:
        scope, routes = request.scope, request.app.routes
        found = {m for m in _METHODS if any(r.matches({**scope, "method": m})[0] is Match.FULL for r in routes)}
    if "GET" in found and answers_head(request.url.path):
        found.add("HEAD")
    return ", ".join(m for m in _METHODS if m in found)


async def _race_lost(request: Request, error: Exception) -> Response:
    """Answer 409 to a violated constraint. Rules are checked before a write, so a concurrent write is the cause."""
    log.warning("a concurrent write came first: %s", error)
    detail = "expected no concurrent write, got one that came first; read again and retry"
    return respond(request.scope, 409, "conflict", detail)


async def _database_away(request: Request, error: Exception) -> Response:
    """Answer an error of the database: full disk, broken file, no answer, or a lock that was held for too long."""
    full, broken = troubles.full_database(error), troubles.broken_database(error)
    if full is not None:
        return _no_space(request.scope, error, full)
    _complain("the database cannot be used", error)
    got = "got no answer in time; send the same request again"
    if broken is not None:
        got = "got one whose file cannot be read or written; bring the file or directory of PNC_DATABASE_URL back"
    detail = f"expected the database to answer, {got}"
    return respond(request.scope, 503, "database_unavailable", detail, headers={"Retry-After": str(RETRY_SECONDS)})


async def _system_error(request: Request, error: Exception) -> Response:
    """Answer an error of the operating system: 507 or 503 if the environment is the cause, else 500."""
    why = troubles.reason(error)
    if why is None:
        _log(request.scope, error)
        return _server_error(request.scope)
    if troubles.is_full(error):
        return _no_space(request.scope, error, why)
    _complain("the file system cannot be used", error)
    detail = f"expected files that can be read and written, got: {why}; bring the directory back"
    return respond(request.scope, 503, "store_unavailable", detail, headers={"Retry-After": str(RETRY_SECONDS)})


def _no_space(scope: Any, error: Exception, why: str) -> Response:
    _complain("the disk is full", error)
    return refuse(scope, errors.NoSpace(f"expected room to write, got: {why}; free some space"))


class UnexpectedErrors:
    """ASGI middleware that logs each unexpected error once and answers 500.

    Starlette's handler of `Exception` raises the error again, and the server would log it a second time.

    Args:
        app: The next ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. An error after the answer has begun is raised again: the server then disconnects."""
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            if scope["type"] != "http":
                raise
            if _is_disconnect(error):
                _log_disconnect(scope)
                return
            _log(scope, None if begun else error)
            if begun:
                raise
            await _server_error(scope)(scope, receive, send)


def _is_disconnect(error: BaseException | None) -> bool:
    """Whether a disconnected client is the error or a cause of it."""
    while error is not None and not isinstance(error, ClientDisconnect):
        error = error.__cause__ or error.__context__
    return error is not None


def _log_disconnect(scope: Scope) -> None:
    request_id = scope.get("state", {}).get("request_id", "")
    log.info("request %s was aborted by its client: %s %r", request_id, scope["method"], scope["path"])


def _log(scope: Scope, error: Exception | None) -> None:
    """Log the request id, method and path of a failed request. The path is quoted, because it may hold line breaks."""
    request_id = scope.get("state", {}).get("request_id", "")
    log.error("request %s failed: %s %r", request_id, scope["method"], scope["path"], exc_info=error)


def _server_error(scope: Scope) -> Response:
    detail = "expected to handle this, got an internal error; tell the operator the request id"
    return respond(scope, 500, "internal_error", detail)


def _pointer(error: dict[str, Any]) -> str:
    """`("body", "config", "keep")` becomes `/config/keep`, `("query", "limit")` becomes `query:limit`."""
    where, *steps = (str(step) for step in error["loc"])
    if error["type"] == "json_invalid":  # the location is an offset into the text
        return ""
    if where == "body":
        return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
    return ":".join([where, *steps])


def _detail(error: dict[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "json_invalid":
        return _expected_object(f"text that fails at character {error['loc'][-1]} ({error['ctx']['error']})")
    if error["loc"] == ("body",) and error["type"] != "value_error":
        return _expected_object("none" if error["type"] == "missing" else _shown(error.get("input")))
    if error["type"] in ("missing", "value_error"):
        return message
    return f"{message}, got {_shown(error.get('input'))}"


def _shown(value: Any) -> str:
    """The beginning of a value's text."""
    return f"{_BRIEF.repr(value):.80}"


def _expected_object(got: str) -> str:
    return f"expected a body that is a JSON object in UTF-8, got {got}; send it as application/json, see /openapi.json"
