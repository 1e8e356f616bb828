"""HTTP API of keys, the caller's workspace and the audit log."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from sqlalchemy.orm import Session

from app.access import audit, keys, workspaces
from app.access.keys import Caller
from app.api.documented import documented
from app.api.requests import Asking, ListOf, ListQuery, OpenZoo, ReadSession
from app.api.scopes import ScopedRoute, needs
from pnc_client.schemas import keys as wire
from pnc_client.schemas.shapes import Page

router = APIRouter(prefix="/v1", tags=["access"], route_class=ScopedRoute)
Id = Annotated[str, Path(description="Id of a key.", examples=["key_019aa3b0c1d27f0e9d5c6b7a8f901234"])]


class AuditQuery(ListQuery):
    """Query of the audit log."""

    key: str | None = None
    """Id of a key: only requests with this key."""


# No Idempotency-Key here: it would store the answer, and the answer contains the secret.
@router.post("/keys", response_model=wire.KeySecret, status_code=201)
@needs("admin")
def create_key(body: wire.KeyCreate, zoo: OpenZoo) -> Any:
    """Create a key of the caller's workspace. Only this answer contains the key's secret."""
    lifetime = timedelta(days=body.days) if body.days else None
    with zoo.database.write() as session:
        row, secret = keys.create(session, name=body.name, scopes=body.scopes, lifetime=lifetime)
        return {**wire.Key.model_validate(row).model_dump(), "secret": secret}


@router.get("/keys", response_model=Page[wire.Key])
@needs("admin")
def list_keys(session: ReadSession, query: ListOf) -> Any:
    """Keys of the workspace, newest first, including revoked and expired keys."""
    return keys.list_keys(session, query.window())


@router.delete("/keys/{key}", status_code=204, responses=documented(404))
@needs("admin")
def revoke_key(key: Id, zoo: OpenZoo) -> None:
    """Revoke a key at once, and end its open event streams and pages. Revoking it again changes nothing."""
    with zoo.database.write() as session:
        keys.revoke(session, key)


@router.get("/workspace", response_model=wire.Workspace)
@needs("read")
def get_workspace(session: ReadSession, caller: Asking) -> Any:
    """The caller's workspace with its limits and usage, and the scopes of the caller's key."""
    return _shown(session, caller)


@router.patch("/workspace", response_model=wire.Workspace)
@needs("admin")
def change_workspace(body: wire.WorkspaceChange, zoo: OpenZoo, caller: Asking) -> Any:
    """Change whether modules need a trusted signature, and after how many days archived records are purged."""
    with zoo.database.write() as session:
        row = workspaces.own(session)
        if body.require_signature is not None:
            row.require_signature = body.require_signature
        if body.retention_days is not None:
            row.retention_days = None if body.retention_days == "off" else body.retention_days
        return _shown(session, caller)


@router.get("/audit", response_model=Page[wire.AuditEntry])
@needs("admin")
def list_audit(session: ReadSession, query: Annotated[AuditQuery, Query()]) -> Any:
    """The workspace's audit log: requests that changed something or were refused, newest first."""
    return audit.list_entries(session, query.window(), key_id=query.key)


def _shown(session: Session, caller: Caller) -> wire.Workspace:
    row = workspaces.own(session)
    return wire.Workspace(
        name=row.name,
        key=caller.key_id,
        scopes=sorted(caller.scopes),
        max_bytes=row.max_bytes,
        bytes=workspaces.stored_bytes(session),
        max_jobs=row.max_jobs,
        jobs=workspaces.live_jobs(session),
        requests_per_minute=row.requests_per_minute,
        require_signature=row.require_signature,
        retention_days=row.retention_days,
    )
