"""Models, their immutable versions, and the names that point at them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import case, func, or_, select, update
from sqlalchemy.orm import Session, joinedload, lazyload
from sqlalchemy.orm.interfaces import ORMOption

from app.db import archive, clock
from app.db.ids import new_id
from app.db.isolation import workspace_of
from app.db.pages import Page, Window, page
from app.errors import AlreadyExists, Invalid, NotFound, Problem
from app.models.tables import AliasRow, ModelRow, VersionRow
from app.names import check_alias, check_model_name
from app.store import uploads
from app.store.objects import Store
from pnc_core.config import NetworkSpec
from pnc_core.errors import TensorFileError
from pnc_core.module.manifest import build
from pnc_core.tensorfile import read_header

MAX_NUMBER = 2**31 - 1
"""Characters of a model's description, which is its card."""
_ALONE = lazyload("*")
_NAMED = joinedload(VersionRow.model, innerjoin=True).lazyload("*")
"""A version with its model, which it has its name from, and no more."""


@dataclass(frozen=True)
class Accuracy:
    """How well a version does, as somebody measured it."""

    share: float
    """Of images that it names right, 0..1."""
    images: int
    dataset: str
    """Id of where the images are from."""


def create(session: Session, *, name: str, description: str = "") -> ModelRow:
    """Register a model, still without versions; one that was purged begins anew, and its versions count on.

    Raises:
        Invalid: the name is not one, or begins like an id.
        AlreadyExists: it is taken, perhaps by an archived model.
    """
    check_model_name(name)
    model = _by_name(session, name)
    if model is not None and model.purged_at is None:
        raise AlreadyExists(f"expected a new name, got {name!r}, which is taken; add a version to it or choose another")
    if model is None:
        model = ModelRow(id=new_id("mdl"), name=name, aliases=[])
    model.description, model.created_at = description, clock.now(session)
    model.archived_at = model.purged_at = None
    session.add(model)
    session.flush()
    return model


def list_models(session: Session, window: Window, *, archived: bool = False) -> Page[ModelRow]:
    """Models, newest first; archived ones only when asked for."""
    query = select(ModelRow).where(ModelRow.purged_at.is_(None))
    if not archived:
        query = query.where(ModelRow.archived_at.is_(None))
    return page(session, query, ModelRow.id, str, window)


def get(session: Session, name: str, *options: ORMOption, purged: bool = False) -> ModelRow:
    """One model by name or id.

    Args:
        session: A session.
        name: Its name or id.
        *options: How to load what hangs on it.
        purged: Also one that was purged.

    Raises:
        NotFound: there is none.
    """
    is_id = name.startswith("mdl_")
    model = session.get(ModelRow, name, options=options) if is_id else _by_name(session, name, *options)
    return archive.found(model, f"expected a model, got none named {name!r:.80}; see GET /v1/models", purged=purged)


def change(
    session: Session,
    name: str,
    *,
    description: str | None = None,
    archived: bool | None = None,
    clonable: Sequence[str] | Literal["all"] | None = None,
) -> ModelRow:
    """Change what may change of a model; None leaves a field as it is.

    Args:
        session: A writing session.
        name: The model.
        description: New free text.
        archived: Archive or restore.
        clonable: Classes that jobs may clone from it; jobs that are waiting are refused by their worker.

    Raises:
        NotFound: there is no such model.
    """
    model = get(session, name)
    if description is not None:
        model.description = description
    if archived is not None:
        archive.set_archived(session, model, archived)
    if clonable is not None:
        model.clonable = None if clonable == "all" else list(clonable)
    return model


def add_version(
    session: Session,
    name: str,
    *,
    upload_id: str,
    spec: NetworkSpec,
    licence: str = "",
    origin: Mapping[str, Any] | None = None,
) -> VersionRow:
    """Add the next version from a complete upload; it is `validating` until a worker has tried it.

    Args:
        session: A writing session.
        name: The model.
        upload_id: A safetensors file.
        spec: How to rebuild the network.
        licence: Licence of the weights.
        origin: Place that the weights were imported from.

    Raises:
        NotFound: there is no such model.
        Archived: it is archived.
        Invalid: the upload is not complete.
    """
    model = get(session, name)
    session.flush()
    session.refresh(model, with_for_update=True)
    archive.check_live(model)
    upload, key = uploads.completed(session, upload_id, keep=True)
    model.last_version += 1
    version = VersionRow(
        id=new_id("ver"),
        model=model,
        number=model.last_version,
        spec=spec.to_dict(),
        licence=licence,
        origin=None if origin is None else dict(origin),
        digest=upload.digest,
        bytes=upload.bytes,
        key=key,
    )
    session.add(version)
    session.flush()
    return version


def check_header(store: Store, key: str) -> None:
    """See that an object is harmless safetensors, as far as its header tells; call it outside any transaction.

    Raises:
        Invalid: it is damaged or dangerous.
    """
    try:
        with store.open(key) as file:
            read_header(file)
    except TensorFileError as error:
        raise Invalid.at("/upload", error.code, str(error)) from None


def list_versions(session: Session, name: str, window: Window, *, archived: bool = False) -> Page[VersionRow]:
    """Versions of a model, newest first; archived ones only when asked for.

    Raises:
        NotFound: there is no such model.
    """
    model = get(session, name, _ALONE)
    query = select(VersionRow).where(VersionRow.model_id == model.id, VersionRow.purged_at.is_(None)).options(_NAMED)
    if not archived:
        query = query.where(VersionRow.archived_at.is_(None))
    return page(session, query, VersionRow.number, int, window)


def count_versions(session: Session, model: ModelRow) -> int:
    """How many versions a model has, archived ones too."""
    there = VersionRow.model_id == model.id, VersionRow.purged_at.is_(None)
    return session.scalar(select(func.count()).select_from(VersionRow).where(*there)) or 0


def get_version(session: Session, name: str, number: int, *, purged: bool = False) -> VersionRow:
    """One version of a model.

    Args:
        session: A session.
        name: The model.
        number: The version.
        purged: Also one that was purged.

    Raises:
        NotFound: there is no such model or version.
    """
    model = get(session, name, _ALONE, purged=purged)
    query = select(VersionRow).where(VersionRow.model_id == model.id, VersionRow.number == number).options(_NAMED)
    version = session.scalars(query).one_or_none() if 0 < number <= MAX_NUMBER else None
    missing = f"expected a version of {model.name} from 1 to {model.last_version}, got {number}"
    return archive.found(version, missing, purged=purged)


def note_accuracy(session: Session, version_id: str, found: Accuracy) -> None:
    """Keep what was measured of a version, unless as many images have spoken before.

    Args:
        session: A writing session.
        version_id: The version.
        found: What was measured.
    """
    fewer = or_(VersionRow.accuracy_images.is_(None), VersionRow.accuracy_images < found.images)
    values = {"accuracy": found.share, "accuracy_images": found.images, "accuracy_dataset": found.dataset}
    session.execute(update(VersionRow).where(VersionRow.id == version_id, fewer).values(values))


def put_version_away(session: Session, name: str, number: int, archived: bool) -> VersionRow:
    """Archive or restore a version.

    Raises:
        NotFound: there is no such model or version.
    """
    version = get_version(session, name, number)
    archive.set_archived(session, version, archived)
    return version


def set_alias(session: Session, name: str, alias: str, number: int) -> AliasRow:
    """Point an alias at a version, whether it is new or pointed elsewhere.

    Raises:
        Invalid: the alias is not one.
        NotFound: there is no such model or version.
    """
    check_alias(alias)
    version = get_version(session, name, number)
    row = session.get(AliasRow, (version.model_id, alias))
    if row is None:
        row = AliasRow(model_id=version.model_id, alias=alias)
        session.add(row)
    row.version = version
    session.flush()
    return row


def delete_alias(session: Session, name: str, alias: str) -> None:
    """Remove an alias.

    Raises:
        NotFound: there is no such model or alias.
    """
    model = get(session, name)
    row = session.get(AliasRow, (model.id, alias))
    if row is None:
        raise NotFound(f"expected an alias of {model.name}, got none named {alias!r:.80}")
    session.delete(row)


def resolve(session: Session, ref: str) -> VersionRow:
    """The version that `name`, `name@3`, `name@alias` or a version's id means.

    A bare name means the newest version that is ready. Without any it means the newest that
    is still validating, which jobs may wait for, or else the newest of all. Those that are
    archived come last.

    Raises:
        NotFound: there is no such model, version or alias.
    """
    if ref.startswith("ver_"):
        return archive.found(session.get(VersionRow, ref), f"expected a version, got none with id {ref!r:.80}")
    name, _, which = ref.partition("@")
    if which.isascii() and which.isdigit():
        return get_version(session, name, int(which[:12]))
    return _aliased(session, name, which) if which else _newest(session, name)


def spec_of(version: VersionRow) -> NetworkSpec:
    """The version's specification as the library knows it."""
    return build(NetworkSpec, _lists(version.spec), version.ref)


def _lists(spec: dict[str, object]) -> dict[str, object]:
    """JSON has lists only, but a row that was never flushed still holds tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in spec.items()}


def _by_name(session: Session, name: str, *options: ORMOption) -> ModelRow | None:
    query = select(ModelRow).where(ModelRow.workspace == workspace_of(session), ModelRow.name == name)
    return session.scalars(query.options(*options)).one_or_none()


def _aliased(session: Session, name: str, alias: str) -> VersionRow:
    model = get(session, name)
    row = session.get(AliasRow, (model.id, alias))
    if row is None:
        raise NotFound(f"expected an alias of {model.name}, got none named {alias!r:.80}")
    return row.version


def _newest(session: Session, name: str) -> VersionRow:
    model = get(session, name)
    query = select(VersionRow).where(VersionRow.model_id == model.id, VersionRow.purged_at.is_(None))
    usable_first = case({"ready": 0, "rejected": 2}, value=VersionRow.status, else_=1)
    order = (VersionRow.archived_at.is_not(None), usable_first, VersionRow.number.desc())
    version = session.scalars(query.order_by(*order).limit(1)).one_or_none()
    if version is None:
        raise NotFound(f"expected {model.name} to have a version, got none; add one first")
    return version


def archived_problems(pointer: str, version: VersionRow) -> Iterator[Problem]:
    """Say why an archived version, or a version of an archived model, takes no new work."""
    for code, row in (("model_archived", version.model), ("version_archived", version)):
        if row.archived_at is not None:
            kind = code.partition("_")[0]
            detail = f"expected a live {kind}, got {version.ref}, whose {kind} is archived; restore it"
            yield Problem(pointer, code, detail)
