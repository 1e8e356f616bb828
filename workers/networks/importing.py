"""Runs an import: fetch the network, store its weights, add the version.

The version and the end of the import are written in one transaction that the lease protects.
"""

import logging
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from app.access.keys import SCOPES, Caller
from app.db import leases
from app.db.leases import Lease
from app.errors import AlreadyExists, Conflict, Invalid, NotFound, TooLarge, TooMany
from app.imports import runs
from app.imports.sources import parse
from app.imports.tables import ImportRow
from app.models import service as models
from app.sources.found import Found, Rules
from app.sources.resolving import found_at
from app.store import object_locks, uploads
from app.zoo import Zoo
from pnc_core.config import NetworkSpec
from pnc_core.errors import Cancelled, PncError
from pnc_core.module.manifest import build
from workers.retry import progress_writer

log = logging.getLogger(__name__)
FETCHED = 0.9
"""Share of an import that is done when the network is fetched."""
REASONS = (PncError, Invalid, NotFound, Conflict, TooLarge, TooMany)
"""Errors that another attempt would repeat; the import ends with the error as its reason."""


def run_import(zoo: Zoo, lease: Lease, stopped: Callable[[], bool]) -> None:
    """Fetch a network and add it as a version; if stopped, end without a version.

    Raises:
        LeaseLost: another worker has the import now; no version was added.
    """
    with zoo.database.read() as session:
        row = session.get_one(ImportRow, lease.id)
    theirs = zoo.seen_by(Caller(row.workspace, frozenset(SCOPES)))
    try:
        spec = None if row.spec is None else build(NetworkSpec, row.spec, row.id)
        with found_at(parse(row.source), _rules(zoo, lease, stopped), spec) as found:
            _add(theirs, lease, row, found)
    except Cancelled:
        return
    except REASONS as error:
        with zoo.database.write() as session:
            runs.fail(session, lease, {"code": error.code, "detail": str(error)})


def _rules(zoo: Zoo, lease: Lease, stopped: Callable[[], bool]) -> Rules:
    settings = zoo.settings

    def write(session: Session, share: float, message: str) -> None:
        runs.record(session, lease, progress=share, message=message)

    written = progress_writer(zoo, write)

    def report(done: int, total: int) -> None:
        if stopped():
            raise Cancelled("the import was stopped")
        share, of = (done / total, f" of {total:,}") if total else (0.0, "")
        written(FETCHED * share, f"fetched {done:,}{of} bytes")

    return Rules(settings.import_hosts, settings.import_bytes, cache_dir=settings.hub_cache_dir, report=report)


def _add(zoo: Zoo, lease: Lease, row: ImportRow, found: Found) -> None:
    """Store the weights and add the version, in the workspace of the import."""
    spec = found.spec
    assert spec is not None
    draft = uploads.draft_of(found.weights, zoo.settings.max_upload_bytes)
    digest = draft.digest
    with zoo.database.write() as session:
        runs.record(session, lease, progress=FETCHED, message="storing the weights")
        upload = uploads.declare(session, draft).id
    stored = zoo.store.put(found.weights, expected=digest)
    with zoo.database.write() as session:
        uploads.complete(session, upload, stored)
        put = partial(zoo.store.put, found.weights, expected=digest)
        object_locks.put_again(session, zoo.store, stored.key, put)
    models.check_header(zoo.store, stored.key)
    with zoo.database.write() as session:
        leases.held(session, ImportRow, lease)
        _ensure(session, row)
        version = models.add_version(
            session, row.model, upload_id=upload, spec=spec, licence=row.licence or found.licence[:200],
            origin=found.origin.model_dump(),
        )  # fmt: skip
        runs.succeed(session, lease, version)


def _ensure(session: Session, row: ImportRow) -> None:
    """Register the model if its name is new."""
    try:
        models.create(session, name=row.model, description=row.description)
    except AlreadyExists:
        log.debug("%s: the model %s exists", row.id, row.model)
