"""JSON types of errors: RFC 9457 problem documents."""

from pnc_client.schemas.shapes import ResponseBody


class Fault(ResponseBody):
    """One fault of a request."""

    pointer: str
    """JSON pointer into the body, or `query:limit`, `path:deployment`, `header:If-Match`."""
    code: str
    """Stable code for programs."""
    detail: str
    """Message for people: what was expected, what was got, and what to do."""


class ProblemDocument(ResponseBody):
    """Why a request failed."""

    type: str
    """`urn:pnc:problem:` and the code."""
    title: str
    """Name of the HTTP status."""
    status: int
    """The HTTP status."""
    detail: str
    """Message for people: what was expected, what was got, and what to do."""
    code: str
    """Stable code for programs."""
    request_id: str
    """Id of the request, as in the header X-Request-ID and in the logs."""
    errors: list[Fault] = []
    """The request's faults, one by one."""
