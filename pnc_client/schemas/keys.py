"""JSON types of keys, the workspace and the audit log."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import NAME_PATTERN, RequestBody, ResponseBody

Scope = Literal["read", "write", "jobs", "deploy", "admin"]
MAX_DAYS = 3650


class KeyCreate(RequestBody):
    """A key to create."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "ci", "scopes": ["read", "jobs"], "days": 90}]})

    name: str = Field(pattern=NAME_PATTERN)
    """Name for people; several keys may share it."""
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=8)]
    """Allowed operations: `read`, `write` models and datasets, run `jobs`, `deploy`; `admin` includes all of them and
    the management of keys."""
    days: int | None = Field(None, ge=1, le=MAX_DAYS)
    """Days until the key expires; omitted: it does not expire."""


class Key(ResponseBody):
    """A key without its secret; the service stores no secret."""

    id: str
    """Typed id, `key_...`."""
    name: str
    """Name for people."""
    hint: str
    """First characters of the secret."""
    scopes: list[str]
    """Allowed operations."""
    parent_id: str | None
    """For the key of a browser session: the key used to sign in; null for other keys."""
    created_at: datetime
    """Time of creation."""
    expires_at: datetime | None
    """Time of expiry; null: the key does not expire."""
    revoked_at: datetime | None
    """Time of revocation; null: not revoked."""


class KeySecret(Key):
    """A new key with its secret, which is shown only once."""

    secret: str
    """Secret of the key, sent as `Authorization: Bearer pnc_...`."""


class WorkspaceChange(RequestBody):
    """Changes of a workspace; omitted fields stay unchanged."""

    require_signature: bool | None = None
    """Whether deployments take only modules that a trusted key has signed."""
    retention_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] | Literal["off"] | None = None
    """Days until archived resources are purged; `off`: they are purged only on request."""


class Workspace(ResponseBody):
    """The workspace of the caller's key."""

    name: str
    """Unique name."""
    key: str | None
    """Id of the caller's key; null: the service needs no key."""
    scopes: list[str]
    """Operations that the caller may use."""
    max_bytes: int | None
    """Maximum number of stored bytes; null: no limit."""
    bytes: int
    """Number of stored bytes."""
    max_jobs: int | None
    """Maximum number of unfinished jobs; null: no limit."""
    jobs: int
    """Number of unfinished jobs."""
    requests_per_minute: int | None
    """Maximum requests per minute of each key; null: no limit."""
    require_signature: bool
    """Whether deployments take only modules that a trusted key has signed."""
    retention_days: int | None
    """Days until archived resources are purged; null: they are purged only on request."""


class AuditEntry(ResponseBody):
    """One request that changed data or was refused."""

    id: str
    """Typed id, `aud_...`."""
    at: datetime
    """Time of the request."""
    key_id: str | None
    """Id of the caller's key."""
    who: str
    """Name of the caller's key."""
    action: str
    """Operation id in the OpenAPI document."""
    method: str
    """HTTP method."""
    path: str
    """Path of the request, without the query."""
    address: str
    """Network address of the caller."""
    outcome: str
    """HTTP status, or the code of the problem document."""
    request_id: str
    """Request id, as in the logs."""
