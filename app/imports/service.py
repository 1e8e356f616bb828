"""Imports: submit, list, cancel."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, undefer_group

from app.db import runs
from app.db.ids import new_id
from app.db.pages import Page, Window, page
from app.db.tables import SHOWN
from app.errors import Conflict, Invalid, InvalidTransition, NotFound
from app.imports.sources import Source, SourceError, is_allowed, parse
from app.imports.tables import ENDED, ImportRow
from app.names import check_model_name

MOST = 20
"""Limit of a workspace's imports that have not ended."""
BARE = ("url", "mlflow")
"""Kinds of sources that are bare files of weights, and need a specification."""


def submit(
    session: Session,
    *,
    source: str,
    name: str = "",
    spec: Mapping[str, Any] | None = None,
    licence: str = "",
    description: str = "",
    hosts: tuple[str, ...],
) -> ImportRow:
    """Submit an import, which a worker runs.

    Args:
        session: A writing session.
        source: One of `app.imports.sources.FORMS`.
        name: Name of the model; empty: the last part of the source.
        spec: Network of a bare file of weights.
        licence: Licence of the weights; empty: as published.
        description: Description of a new model.
        hosts: Hosts that files may come from.

    Raises:
        Invalid: the source or the name is invalid, or the specification is missing or superfluous.
        Conflict: too many imports wait.
    """
    place = _checked(source, hosts)
    model = name or place.model_name
    check_model_name(model)
    if place.kind in BARE and spec is None:
        detail = "expected the network of a bare file of weights, got none; give spec, or import on your machine"
        raise Invalid.at("/spec", "spec_required", detail)
    if place.kind not in BARE and spec is not None:
        detail = f"expected no spec for {place.text}, which has its own, got one; leave it out"
        raise Invalid.at("/spec", "spec_given", detail)
    open_ones = select(func.count(ImportRow.id)).where(ImportRow.state.not_in(ENDED))
    if (session.scalar(open_ones) or 0) >= MOST:
        raise Conflict(f"expected at most {MOST} unfinished imports, got one more; wait, or cancel one")
    row = ImportRow(
        id=new_id("imp"), source=source, model=model, spec=None if spec is None else dict(spec),
        licence=licence, description=description, message="waiting for a worker",
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def _checked(source: str, hosts: tuple[str, ...]) -> Source:
    try:
        place = parse(source)
    except SourceError as error:
        raise Invalid.at("/source", "invalid_source", str(error)) from None
    if place.kind == "url" and place.text != place.name:
        detail = "expected a URL without user, password, query and fragment, got one that has some; import it on your "
        raise Invalid.at("/source", "invalid_source", detail + "machine with `pnc models import`")
    if place.kind == "url" and not is_allowed(place.host, hosts):
        detail = (
            f"expected a host among {', '.join(hosts) or 'none'}, got {place.host!r:.80}; import on your machine with "
            "`pnc models import`, or ask the operator to add it to PNC_IMPORT_HOSTS"
        )
        raise Invalid.at("/source", "host_not_allowed", detail)
    return place


def get(session: Session, import_id: str, *, lock: bool = False) -> ImportRow:
    """One import.

    Raises:
        NotFound: there is none with this id.
    """
    row = session.get(ImportRow, import_id, with_for_update=lock or None, options=[undefer_group(SHOWN)])
    if row is None:
        raise NotFound(f"expected an import, got none with id {import_id!r:.80}; see GET /v1/imports")
    return row


def list_imports(session: Session, window: Window) -> Page[ImportRow]:
    """Imports, newest first."""
    return page(session, select(ImportRow).options(undefer_group(SHOWN)), ImportRow.id, str, window)


def cancel(session: Session, import_id: str) -> ImportRow:
    """Cancel an import: a waiting one at once, a running one as soon as its worker reads the request.

    Raises:
        NotFound: there is none with this id.
        InvalidTransition: it has ended.
    """
    row = get(session, import_id, lock=True)
    if row.state in ENDED:
        raise InvalidTransition(f"{row.id}: expected an import that has not ended, got one that has {row.state}")
    runs.cancel(session, row)
    return row
