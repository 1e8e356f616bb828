"""HTTP API of trusted keys, and of signatures of modules."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from app.api.documented import documented
from app.api.requests import ListOf, OpenZoo, ReadSession
from app.api.scopes import ScopedRoute, needs
from app.modules import signatures
from app.modules.routes import Id
from pnc_client.schemas import signatures as wire
from pnc_client.schemas.shapes import Page

router = APIRouter(prefix="/v1", tags=["access"], route_class=ScopedRoute)
Name = Annotated[str, Path(description="Name of a trusted key.", examples=["release"])]


@router.post("/trusted-keys", response_model=wire.TrustedKey, status_code=201, responses=documented(409))
@needs("admin")
def trust_key(body: wire.TrustedKeyCreate, zoo: OpenZoo) -> Any:
    """Trust a public key: signatures by it count in this workspace."""
    with zoo.database.write() as session:
        return wire.TrustedKey.model_validate(signatures.trust(session, name=body.name, key=body.key))


@router.get("/trusted-keys", response_model=Page[wire.TrustedKey])
@needs("read")
def list_trusted_keys(session: ReadSession, query: ListOf) -> Any:
    """Public keys that the workspace trusts, newest first."""
    return signatures.list_trusted(session, query.window())


@router.delete("/trusted-keys/{name}", status_code=204, responses=documented(404))
@needs("admin")
def distrust_key(name: Name, zoo: OpenZoo) -> None:
    """Stop trusting a key. If signatures are required, modules signed with it can no longer be attached."""
    with zoo.database.write() as session:
        signatures.distrust(session, name)


@router.put("/modules/{module}/signature", response_model=wire.Signature, responses=documented(404))
@needs("write")
def put_signature(module: Id, body: wire.SignaturePut, zoo: OpenZoo) -> Any:
    """Store a signature of a module by a trusted key. It replaces an earlier signature."""
    with zoo.database.write() as session:
        return wire.Signature.model_validate(signatures.put(session, module, body.signature))


@router.get("/modules/{module}/signature", response_model=wire.Signature, responses=documented(404))
@needs("read")
def get_signature(module: Id, session: ReadSession) -> Any:
    """The signature of a module."""
    return signatures.get(session, module)
