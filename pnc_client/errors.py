"""Errors of the client.

ClientError                everything raised on purpose
├── ApiError               the service answered with a problem document
├── ServiceUnreachable     it did not answer, again and again, or something else did
├── InvalidName            a name or an id that cannot be one
├── VersionRejected        a worker could not use the weights
└── DamagedDownload        a file is not the one that was announced
"""

from typing import Any

from pydantic import ValidationError

from pnc_client.schemas.problems import Fault


class ClientError(Exception):
    """Base of all errors the client raises on purpose."""


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
    """The service did not answer, again and again, or something else did in its place."""


class InvalidName(ClientError):
    """A name or an id that cannot be one, and would lead to something else."""


class VersionRejected(ClientError):
    """A worker could not use the weights."""


class DamagedDownload(ClientError):
    """A file is not the one that was announced."""


def _faults(errors: object) -> list[Fault]:
    """The faults of a problem document; what another server calls errors is none of them."""
    try:
        return [Fault.model_validate(fault) for fault in errors] if isinstance(errors, list) else []
    except ValidationError:
        return []
