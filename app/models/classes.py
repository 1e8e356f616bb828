"""The class names of a version: find one, and search all."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from sqlalchemy.orm import Session

from app.db.pages import Page, Window, check_limit, decode, encode
from app.models import service as models
from app.models.tables import VersionRow
from pnc_core.class_names import ClassName, ClassNames
from pnc_core.errors import AmbiguousClass, UnknownClass


def names_of(version: VersionRow) -> ClassNames:
    """The class names of a version."""
    spec: Mapping[str, Any] = version.spec
    where = f"search its names with GET /v1/models/{version.model.name}/versions/{version.number}/classes"
    return ClassNames(spec["classes"], spec.get("class_aliases"), version.ref, where)


def meant(version: VersionRow, given: Iterable[str]) -> set[str]:
    """Names of the classes that some names mean; names of no class and of several classes are left out."""
    names, found = names_of(version), set[str]()
    for text in given:
        with suppress(UnknownClass, AmbiguousClass):
            found.add(names.find(text))
    return found


def list_classes(session: Session, name: str, number: int, search: str, window: Window) -> Page[ClassName]:
    """Classes of a version, in the order of its logits.

    Args:
        session: A session of the workspace.
        name: Name or id of the model.
        number: Number of the version.
        search: Words that the name or another name of a class must hold.
        window: The page.

    Raises:
        NotFound: there is no such model or version.
        Invalid: the cursor is not one of this service, or the limit is out of range.
    """
    check_limit(window.limit)
    names = names_of(models.get_version(session, name, number))
    start = 0 if window.after is None else decode(window.after, int) + 1
    found = list(islice(names.search(search, start), window.limit + 1))
    data = found[: window.limit]
    has_more = len(found) > window.limit
    return Page(data, has_more, encode(data[-1].number) if has_more else None)
