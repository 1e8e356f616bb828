"""Errors as RFC 9457 problem documents."""

from typing import Any

MEDIA_TYPE = "application/problem+json"
EXAMPLE = {
    "type": "urn:pnc:problem:invalid",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "expected classes of digits-high@1 (5, 6, 7, 8, 9), got 'cat'",
    "code": "invalid",
    "request_id": "req_019aa3b0c1d27f0e9d5c6b7a8f901234",
    "errors": [
        {
            "pointer": "/config/classes",
            "code": "unknown_class",
            "detail": "expected classes of digits-high@1 (5, 6, 7, 8, 9), got 'cat'",
        }
    ],
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries that say these statuses come with a problem document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "example": EXAMPLE}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in statuses}


_MEANINGS = {
    400: "The path is not spelled as this document has it",
    401: "No key, or none that is in force",
    403: "The key lacks the scope, or Host or Origin is not this service's",
    404: "No such thing",
    409: "Not possible in the present state",
    412: "If-Match names a generation that has passed",
    413: "Too many bytes",
    416: "The range is not one of the bundle's",
    422: "The request makes no sense",
    429: "Too many requests, or more than the workspace may have; come again after Retry-After seconds",
    503: "A part of the service does not answer; try again after Retry-After seconds",
    507: "No room is left where the service writes",
}
