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
from app.models import architectures
from app.models import service as models
from app.models.tables import VersionRow
from app.process.threads import LONG, TEXTS
from app.store import uploads
from app.web.page_context import PageContext
from pnc_core.config import NetworkSpec
from pnc_core.errors import BundleError
from pnc_core.module.manifest import build

MOST_DESCRIPTION = 4 * 1024**2
"""Maximum bytes of a network's description; equal to the limit of the API's request bodies."""


def read_spec(text: str) -> NetworkSpec:
    """Parse the JSON description of a network.

    Raises:
        Invalid: the text is not a description of a network.
    """
    try:
        return build(NetworkSpec, json.loads(text), "description")
    except (ValueError, BundleError, RecursionError) as error:
        raise Invalid.at("/spec", "invalid_spec", f"expected the JSON of a network, got: {error}") from None


async def read_spec_apart(text: str) -> NetworkSpec:
    """Run `read_spec` on a thread, because a description may have many classes.

    Raises:
        Invalid: the text is not a description of a network.
    """
    return await TEXTS.run(read_spec, text)


async def text_of(file: Any) -> str:
    """Read the text of a dropped description.

    Args:
        file: NiceGUI's `FileUpload`.

    Raises:
        Invalid: the file is not UTF-8 text, or is too large.
    """
    if file.size() > MOST_DESCRIPTION:
        detail = f"expected a description of at most {MOST_DESCRIPTION:,} bytes, got {file.size():,}"
        raise Invalid.at("/spec", "invalid_spec", detail)
    content: bytes = await file.read()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        detail = f"expected the JSON of a network in UTF-8, got other bytes ({error.reason}); save the file as UTF-8"
        raise Invalid.at("/spec", "invalid_spec", detail) from None


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


async def add_model(context: PageContext, name: str, spec: NetworkSpec, file: Any, licence: str) -> str:
    """Register weights as the next version of a model; returns its reference.

    Raises:
        ZooError: the name or the file is invalid.
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
