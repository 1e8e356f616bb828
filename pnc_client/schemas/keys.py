"""Keys, the workspace and the audit log."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import NAME_PATTERN, RequestBody, ResponseBody

Scope = Literal["read", "write", "jobs", "deploy", "admin"]
MAX_DAYS = 3650


class KeyCreate(RequestBody):
    """A key to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "ci", "scopes": ["read", "jobs"], "days": 90}]})

    name: str = Field(pattern=NAME_PATTERN)
    """Name for people; several keys may share it."""
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=8)]
    """What it may do: `read`, `write` models and datasets, run `jobs`, `deploy`; `admin` may do all, and make keys."""
    days: int | None = Field(None, ge=1, le=MAX_DAYS)
    """After which it ends by itself; left out: never."""


class Key(ResponseBody):
    """A key, without its secret, which is kept nowhere."""

    id: str
    """Typed id, `key_...`."""
    name: str
    """Name for people."""
    hint: str
    """How its secret begins."""
    scopes: list[str]
    """What it may do."""
    parent_id: str | None
    """The key that a browser signed in with, if this one is the browser's."""
    created_at: datetime
    """When it was made."""
    expires_at: datetime | None
    """When it ends by itself."""
    revoked_at: datetime | None
    """When it was ended."""


class NewKey(Key):
    """A key and its secret, this once."""

    secret: str
    """Send it as `Authorization: Bearer pnc_...`."""


class WorkspaceChange(RequestBody):
    """What may change of a workspace over HTTP; fields that are left out stay as they are."""

    require_signature: bool | None = None
    """Whether deployments take only modules that a trusted key has signed."""
    retention_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] | Literal["off"] | None = None
    """After so many days what is archived is purged; `off`: only when somebody asks for it."""


class Workspace(ResponseBody):
    """The workspace that the caller's key belongs to."""

    name: str
    """Unique name."""
    key: str | None
    """Id of the caller's key; null: the service asks for none."""
    scopes: list[str]
    """What the caller may do."""
    max_bytes: int | None
    """Bytes that it may keep; null: as many as there is room for."""
    bytes: int
    """Bytes that it keeps."""
    max_jobs: int | None
    """Jobs that it may have at once."""
    jobs: int
    """Jobs that have not ended."""
    requests_per_minute: int | None
    """Requests of one key."""
    require_signature: bool
    """Whether deployments take only modules that a trusted key has signed."""
    retention_days: int | None
    """After so many days what is archived is purged; null: only when somebody asks for it."""


class AuditEntry(ResponseBody):
    """One request that changed something, or was refused."""

    id: str
    """Typed id, `aud_...`."""
    at: datetime
    """When."""
    key_id: str | None
    """The key that asked."""
    who: str
    """Its name."""
    action: str
    """The operation's id in this document."""
    method: str
    """HTTP method."""
    path: str
    """What was asked for, without the query."""
    address: str
    """Where the request came from."""
    outcome: str
    """The status of the answer, or the code of the problem."""
    request_id: str
    """By which the logs tell of it."""
