"""Zoos with rows in them, made through the same functions the service uses."""

import functools
import hashlib
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.db import engine
from app.db.engine import Database
from app.db.leases import Lease
from app.jobs import runs
from app.jobs import service as jobs
from app.jobs.service import JobRequest
from app.jobs.tables import JobRow
from app.models import service as models
from app.models import validation
from app.models.tables import VersionRow
from app.modules.tables import ModuleRow
from app.settings import Settings
from app.store import uploads
from app.store.tables import UploadRow
from app.zoo import Zoo, open_zoo
from pnc_core.config import CloneConfig, NetworkSpec

DATABASE = "zoo.db"
SECRET_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
"""Encrypts what webhooks are signed with."""
LOW, HIGH = ("0", "1", "2", "3", "4"), ("5", "6", "7", "8", "9")


@functools.cache
def _migrated() -> bytes:
    """The file of an empty SQLite database at the newest revision; the migrations take longer than many tests."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(data_dir=Path(directory))
        database = Database(settings.database_url)
        engine.migrate(database)
        database.close()
        return Path(directory, DATABASE).read_bytes()


def lay_database(directory: Path) -> None:
    """Put an empty, migrated SQLite database where a zoo in this directory looks for it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / DATABASE).write_bytes(_migrated())


def new_zoo(directory: Path, **settings: object) -> Zoo:
    if "database_url" not in settings:
        lay_database(directory)
    settings.setdefault("secret_key", SECRET_KEY)
    settings.setdefault("serving_engine", "torch")  # exports run for seconds in another process
    zoo = open_zoo(Settings(data_dir=directory, **settings))  # type: ignore[arg-type]
    if "database_url" in settings:
        engine.migrate(zoo.database)
    return zoo


def network(classes: tuple[str, ...] = LOW) -> NetworkSpec:
    return NetworkSpec(architecture="plain", classes=classes, input_size=(1, 8, 8), mean=(0.5,), std=(0.5,))


def tensors(value: int = 0) -> bytes:
    """A whole safetensors file with one tensor of four bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes([value] * 4)


def parquet(labels: list[int], classes: tuple[str, ...] | None = LOW + HIGH) -> bytes:
    """A file of the Hugging Face image layout."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    if classes is not None:
        info = {"info": {"features": {"label": {"names": list(classes), "_type": "ClassLabel"}}}}
        schema = schema.with_metadata({"huggingface": json.dumps(info)})
    rows = [{"bytes": b"png", "path": None}] * len(labels)
    file = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array(rows, image), "label": pa.array(labels)}, schema=schema), file)
    return file.getvalue()


def upload(session: Session, zoo: Zoo, content: bytes) -> UploadRow:
    digest = hashlib.sha256(content).hexdigest()
    row = uploads.declare(session, uploads.draft(bytes=len(content), sha256=digest, limit=10**9))
    return uploads.complete(session, row.id, zoo.store.put([content]))


def version(
    session: Session, zoo: Zoo, name: str, classes: tuple[str, ...] = LOW, *, status: str = "ready", value: int = 0
) -> VersionRow:
    """A version of a new model; `value` makes its weights and fingerprint its own."""
    models.create(session, name=name)
    up = upload(session, zoo, tensors(value))
    row = models.add_version(session, name, upload_id=up.id, spec=network(classes))
    if status == "ready":
        accept(session, row, f"{value:064x}")
    elif status == "rejected":
        validation.reject_version(
            session, _validating(session), {"code": "weights_mismatch", "detail": "no such layer"}
        )
    return row


def accept(session: Session, row: VersionRow, fingerprint: str) -> None:
    lease = _validating(session)
    assert lease.id == row.id
    validation.accept_version(session, lease, fingerprint=fingerprint, parameters=1000, macs=5000)


def dataset(session: Session, zoo: Zoo, images: int = 10) -> DatasetRow:
    """The same number of images of each of the ten digits."""
    content = parquet([label for label in range(10) for _ in range(images)])
    up = upload(session, zoo, content)
    return datasets.register(session, name="digits", upload_id=up.id, contents=datasets.inspect(io.BytesIO(content)))


def request(session: Session, zoo: Zoo, classes: tuple[str, ...] = ("7", "8")) -> JobRequest:
    """A job that makes sense, with new versions and a dataset behind it."""
    version(session, zoo, "low", LOW, value=1)
    version(session, zoo, "high", HIGH, value=2)
    data = dataset(session, zoo)
    return JobRequest(target="low", source="high", dataset=data.id, config=CloneConfig(classes=classes))


def queued(session: Session, zoo: Zoo) -> JobRow:
    return jobs.submit(session, request(session, zoo))


def publish(
    session: Session,
    zoo: Zoo,
    lease: Lease,
    classes: tuple[str, ...] = ("7", "8"),
    target_fingerprint: str = f"{1:064x}",
) -> ModuleRow:
    """End a job with two small bundles."""
    bundles = []
    for payload in ("thin", "full"):
        stored = zoo.store.put([payload.encode() * 100, lease.id.encode()])
        bundles.append((payload, stored.digest, stored.bytes))
    manifest = {"classes": list(classes), "target_fingerprint": target_fingerprint, "format": "pnc-bundle/1"}
    return runs.succeed(session, lease, manifest=manifest, bundles=bundles)


def module(session: Session, zoo: Zoo, classes: tuple[str, ...] = ("7", "8")) -> ModuleRow:
    """A module cloned for the model `low`, with everything before it."""
    jobs.submit(session, request(session, zoo, classes))
    lease = runs.claim(session, "worker")
    assert lease is not None
    return publish(session, zoo, lease, classes)


def job_of(session: Session, module: ModuleRow) -> JobRow:
    """Return the job that made a module."""
    return session.get_one(JobRow, module.job_id)


def another_request(data: str, classes: tuple[str, ...] = ("7", "8")) -> JobRequest:
    """One more job like that of `request`."""
    return JobRequest(target="low", source="high", dataset=data, config=CloneConfig(classes=classes))


def another_module(session: Session, zoo: Zoo, data: str, classes: tuple[str, ...]) -> ModuleRow:
    """One more module for the same target."""
    jobs.submit(session, another_request(data, classes))
    lease = runs.claim(session, "worker")
    assert lease is not None
    return publish(session, zoo, lease, classes)


def expire(session: Session, row: JobRow | VersionRow) -> None:
    """Let the row's lease have run out a second ago."""
    from datetime import timedelta

    from app.db import clock

    row.lease_expires_at = clock.now(session) - timedelta(seconds=1)
    session.flush()


def _validating(session: Session) -> Lease:
    lease = validation.claim_validation(session, "validator")
    assert lease is not None
    return lease
