"""OpenAPI entries of problem documents (RFC 9457)."""

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
    """OpenAPI entries of statuses that are answered with a problem document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "example": EXAMPLE}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in statuses}


_MEANINGS = {
    400: "The path is not in the spelling of this document",
    401: "The key is missing, unknown, expired or revoked",
    403: "The key lacks the scope, or Host or Origin is not allowed",
    404: "Not found",
    409: "Not possible in the present state",
    412: "If-Match names an older generation",
    413: "The body or the file is too large",
    416: "The range lies outside the bundle",
    422: "The request is invalid; `errors` lists the faults",
    429: "Too many requests, or a quota of the workspace is exceeded; retry after Retry-After seconds",
    503: "A part of the service does not answer; retry after Retry-After seconds",
    507: "The disk or the object store of the service is full",
}
