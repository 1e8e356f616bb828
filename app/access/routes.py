"""Keys, the caller's workspace, and the audit log."""

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
    """Only what was done with this key."""


# Not repeatable with an Idempotency-Key: the answer would be kept, and with it the secret.
@router.post("/keys", response_model=wire.NewKey, status_code=201)
@needs("admin")
def create_key(body: wire.KeyCreate, zoo: OpenZoo) -> Any:
    """Make a key of the caller's workspace; its secret is in this answer and never again."""
    lifetime = timedelta(days=body.days) if body.days else None
    with zoo.database.write() as session:
        row, secret = keys.create(session, name=body.name, scopes=body.scopes, lifetime=lifetime)
        return {**wire.Key.model_validate(row).model_dump(), "secret": secret}


@router.get("/keys", response_model=Page[wire.Key])
@needs("admin")
def list_keys(session: ReadSession, query: ListOf) -> Any:
    """Keys of the workspace, newest first, those that have ended included."""
    return keys.list_keys(session, query.window())


@router.delete("/keys/{key}", status_code=204, responses=documented(404))
@needs("admin")
def revoke_key(key: Id, zoo: OpenZoo) -> None:
    """End a key at once, open streams and pages included; again is fine."""
    with zoo.database.write() as session:
        keys.revoke(session, key)


@router.get("/workspace", response_model=wire.Workspace)
@needs("read")
def get_workspace(session: ReadSession, caller: Asking) -> Any:
    """The caller's workspace: what it may keep and keeps, and what the caller's key may do."""
    return _shown(session, caller)


@router.patch("/workspace", response_model=wire.Workspace)
@needs("admin")
def change_workspace(body: wire.WorkspaceChange, zoo: OpenZoo, caller: Asking) -> Any:
    """Change what deployments of the workspace take, and how long archived things are kept."""
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
    """What was done in the workspace with keys, newest first."""
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
