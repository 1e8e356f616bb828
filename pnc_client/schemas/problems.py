"""Errors as RFC 9457 problem documents."""

from pnc_client.schemas.shapes import ResponseBody


class Fault(ResponseBody):
    """One fault of a request."""

    pointer: str
    """JSON pointer into the body, or `query:limit`, `path:deployment`, `header:If-Match`."""
    code: str
    """Stable, machine-readable."""
    detail: str
    """What was expected, what was got and what to do."""


class ProblemDocument(ResponseBody):
    """Why a request failed."""

    type: str
    """`urn:pnc:problem:` and the code."""
    title: str
    """The status in words."""
    status: int
    """The HTTP status."""
    detail: str
    """What was expected, what was got and what to do."""
    code: str
    """Stable, machine-readable."""
    request_id: str
    """Also in the X-Request-ID header; name it when asking for help."""
    errors: list[Fault] = []
    """Single faults of the request, when it has any."""
