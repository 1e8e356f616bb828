"""Errors of the client.

ClientError                base class of all errors below
├── ApiError               the service answered with a problem document
├── ServiceUnreachable     no attempt reached the service, or another server answered
├── InvalidName            a name or id holds characters that names cannot have
├── VersionRejected        a worker rejected the weights
└── DamagedDownload        a downloaded file has not the announced digest
"""

from typing import Any

from pydantic import ValidationError

from pnc_client.schemas.problems import Fault


class ClientError(Exception):
    """Base class of the client's errors."""


class ApiError(ClientError):
    """The service answered with a problem document (RFC 9457).

    Args:
        status: HTTP status.
        problem: The document.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code", "unknown"))
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", ""))
        self.request_id = str(problem.get("request_id", ""))
        self.errors = _faults(problem.get("errors"))
        super().__init__(f"{status} {self.code}: {self.detail} (request {self.request_id or 'without id'})")


class ServiceUnreachable(ClientError):
    """No attempt reached the service, or another server answered at its address."""


class InvalidName(ClientError):
    """A name or id is empty or holds characters that would change the request's path."""


class VersionRejected(ClientError):
    """A worker rejected the weights."""


class DamagedDownload(ClientError):
    """A downloaded file has not the announced digest."""


def _faults(errors: object) -> list[Fault]:
    """The faults of a problem document; empty if `errors` has another server's form."""
    try:
        return [Fault.model_validate(fault) for fault in errors] if isinstance(errors, list) else []
    except ValidationError:
        return []
