"""Make models and datasets from files that a visitor drops on a page, by the rules of the API."""

import json
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.datasets import sandbox
from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.errors import AlreadyExists, Invalid
from app.models import architectures, checks
from app.models import service as models
from app.models.tables import VersionRow
from app.process.threads import LONG, TEXTS
from app.store import uploads
from app.web.page_context import PageContext
from pnc_core.config import NetworkSpec

MOST_DOCUMENT = 16 * 1024**2
"""Maximum bytes of a document that the browser makes of a dropped file."""


async def document_of(file: Any) -> dict[str, Any]:
    """Parse a JSON object that the browser made.

    Args:
        file: NiceGUI's `FileUpload`.

    Raises:
        Invalid: the file is no JSON object, or is too large.
    """
    if file.size() > MOST_DOCUMENT:
        detail = f"expected at most {MOST_DOCUMENT:,} bytes of names and shapes, got {file.size():,}"
        raise Invalid.at("/weights", "invalid_outline", f"{detail}; save model.state_dict() alone")
    try:
        value = await TEXTS.run(json.loads, await file.read())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Invalid.at(
            "/weights", "invalid_outline", "expected a JSON object, got another value; load the page again"
        )
    return value


async def receive(context: PageContext, file: Any) -> str:
    """Store a dropped file as a complete upload.

    Args:
        context: Context of the page.
        file: NiceGUI's `FileUpload`.

    Returns:
        The upload's id.

    Raises:
        ZooError: the file is empty or too large.
    """
    context.check("write")
    with tempfile.TemporaryDirectory(dir=context.zoo.staging) as folder:
        path = Path(folder) / "file"
        await file.save(path)
        return await LONG.run(_store, context, path)


async def add_model(
    context: PageContext, name: str, spec: NetworkSpec, file: Any, licence: str, dataset: str | None = None
) -> str:
    """Register weights as the next version of a model.

    Args:
        context: Context of the page.
        name: Name of a new or an existing model.
        spec: Description of the network.
        file: NiceGUI's `FileUpload`.
        licence: Licence of the weights.
        dataset: Id of a dataset on which a worker checks the version.

    Returns:
        Reference of the version.

    Raises:
        ZooError: the name, the file or the dataset is invalid.
    """
    problems = await LONG.run(architectures.problems, spec)
    if problems:
        raise Invalid(problems)
    upload = await receive(context, file)
    key = await context.read(lambda session: uploads.completed(session, upload)[1])
    await LONG.run(models.check_header, context.zoo.store, key)

    def work(session: Session) -> str:
        try:
            models.create(session, name=name)
        except AlreadyExists:
            models.get(session, name)
        row: VersionRow = models.add_version(session, name, upload_id=upload, spec=spec, licence=licence)
        if dataset is not None:
            checks.ask_when_ready(session, row, datasets.get(session, dataset))
        return row.ref

    return await context.write(work)


async def add_dataset(context: PageContext, name: str, file: Any) -> str:
    """Register a Parquet file; returns the dataset's id.

    Raises:
        ZooError: the name or the file is invalid.
    """
    upload = await receive(context, file)

    key = await context.read(lambda session: uploads.completed(session, upload)[1])

    def inspect() -> datasets.Contents:
        with context.zoo.store.open(key) as stream:
            return sandbox.inspect(stream, None, context.zoo.staging)

    contents = await LONG.run(inspect)

    def work(session: Session) -> str:
        row: DatasetRow = datasets.register(session, name=name, upload_id=upload, contents=contents)
        return row.id

    return await context.write(work)


def _store(context: PageContext, path: Path) -> str:
    draft = uploads.draft_of(path, context.zoo.settings.max_upload_bytes)
    digest = draft.digest
    with context.zoo.database.write() as session:
        upload = uploads.declare(session, draft).id
    stored = context.zoo.store.put(path, expected=digest)
    with context.zoo.database.write() as session:
        uploads.check_kept(session, context.zoo.store, uploads.complete(session, upload, stored))
    return upload
