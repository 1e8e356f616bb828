"""Files that a visitor drops on a page become models and datasets, by the same rules as those of the API."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.datasets import sandbox
from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.errors import AlreadyExists, Invalid
from app.models import service as models
from app.models.tables import VersionRow
from app.process.threads import LONG, TEXTS
from app.store import uploads
from app.web.page_context import PageContext
from pnc_core.config import NetworkSpec
from pnc_core.errors import BundleError
from pnc_core.module.manifest import build

MOST_DESCRIPTION = 4 * 1024**2
"""Bytes of a network's description, as of a body of the API."""


def read_spec(text: str) -> NetworkSpec:
    """A network's description as its JSON file holds it.

    Raises:
        Invalid: it is not such a description.
    """
    try:
        return build(NetworkSpec, json.loads(text), "description")
    except (ValueError, BundleError, RecursionError) as error:
        raise Invalid.at("/spec", "invalid_spec", f"expected the JSON of a network, got: {error}") from None


async def read_spec_apart(text: str) -> NetworkSpec:
    """As `read_spec`, on a thread: a description may name many classes.

    Raises:
        Invalid: it is not such a description.
    """
    return await TEXTS.run(read_spec, text)


async def text_of(file: Any) -> str:
    """What a dropped description says.

    Args:
        file: NiceGUI's `FileUpload`.

    Raises:
        Invalid: it is no text, or too much.
    """
    if file.size() > MOST_DESCRIPTION:
        detail = f"expected a description of at most {MOST_DESCRIPTION:,} bytes, got {file.size():,}"
        raise Invalid.at("/spec", "invalid_spec", detail)
    content: bytes = await file.read()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        detail = f"expected the JSON of a network in UTF-8, got other bytes ({error.reason}); save it as UTF-8"
        raise Invalid.at("/spec", "invalid_spec", detail) from None


async def receive(context: PageContext, file: Any) -> str:
    """Keep a dropped file as a complete upload.

    Args:
        context: What the page works with.
        file: NiceGUI's `FileUpload`.

    Returns:
        The upload's id.

    Raises:
        ZooError: it is too large or empty.
    """
    context.check("write")
    with tempfile.TemporaryDirectory(dir=context.zoo.staging) as folder:
        path = Path(folder) / "file"
        await file.save(path)
        return await LONG.run(_keep, context, path)


async def add_model(context: PageContext, name: str, spec: NetworkSpec, file: Any, licence: str) -> str:
    """Register weights as the next version of a model; returns its reference.

    Raises:
        ZooError: the name or the file cannot be used.
    """
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
        ZooError: the name or the file cannot be used.
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


def _keep(context: PageContext, path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    size, limit = path.stat().st_size, context.zoo.settings.max_upload_bytes
    draft = uploads.draft(bytes=size, sha256=digest, limit=limit)
    with context.zoo.database.write() as session:
        upload = uploads.declare(session, draft).id
    stored = context.zoo.store.put(path, expected=digest)
    with context.zoo.database.write() as session:
        uploads.check_kept(session, context.zoo.store, uploads.complete(session, upload, stored))
    return upload
