"""Fits a composition: load the target, the modules and the images, fit, store the file, end the row."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from sqlalchemy.orm import Session

from app.compositions import runs
from app.compositions.tables import CompositionRow
from app.datasets.tables import DatasetRow
from app.db.leases import Lease
from app.errors import Invalid, NotFound
from app.models.tables import VersionRow
from app.modules.tables import ModuleRow
from app.process.resources import processors
from app.store import object_locks
from app.store.objects import key_of, verified_file
from app.zoo import Zoo
from pnc_core.analysis.evaluation import multiply_accumulates
from pnc_core.config import geometries_of
from pnc_core.errors import Cancelled, PncError
from pnc_core.images import EVALUATION_BATCH
from pnc_core.method.composing.compose import compose
from pnc_core.method.job import Progress
from pnc_core.module.bundle import Bundle, read_bundle
from pnc_core.module.composition import Composition
from workers.loading import Network, load_images, load_version
from workers.retry import progress_writer, raise_if_store_is_down

REASONS = (PncError, Invalid, NotFound)
"""Errors that another attempt would repeat; the composition ends with the error as its reason."""


def run_composition(zoo: Zoo, lease: Lease, stopped: Callable[[], bool]) -> None:
    """Fit a composition and store it; if stopped, end without a result.

    Raises:
        LeaseLost: another worker has the composition now; nothing was published.
    """
    with zoo.database.read() as session:
        row = session.get_one(CompositionRow, lease.id)
        version = session.get_one(VersionRow, row.target_version_id)
        dataset = session.get_one(DatasetRow, row.dataset_id)
        members = [member.module for member in row.members]

    def write(session: Session, share: float, message: str) -> None:
        runs.record(session, lease, progress=share, message=message)

    written = progress_writer(zoo, write)

    def report(step: Progress) -> None:
        written(step.done, step.message)

    try:
        report(Progress("loading", 0.0, f"loading {version.ref}, {len(members)} modules and the images"))
        made = _fitted(zoo, row, version, dataset, members, report, stopped)
        _publish(zoo, lease, made)
    except Cancelled:
        return
    except REASONS as error:
        raise_if_store_is_down(zoo, error)
        with zoo.database.write() as session:
            runs.fail(session, lease, {"code": error.code, "detail": str(error)})


def _fitted(
    zoo: Zoo,
    row: CompositionRow,
    version: VersionRow,
    dataset: DatasetRow,
    members: list[ModuleRow],
    report: Callable[[Progress], None],
    stopped: Callable[[], bool],
) -> Composition:
    target, bundles = load_version(zoo, version), [_bundle(zoo, module) for module in members]
    found: dict[str, Network] = {}
    for module in members:
        if module.source_version_id not in found:
            found[module.source_version_id] = load_version(zoo, module.source_version)
    sources = [found[module.source_version_id] for module in members]
    classes = tuple(dict.fromkeys((*target[1].classes, *(c for b in bundles for c in b.manifest.classes))))
    geometries = geometries_of([target[1], *(spec for _, spec in sources)])
    images = load_images(zoo, dataset, classes, geometries)
    torch.set_num_threads(
        processors.threads_for(EVALUATION_BATCH * multiply_accumulates(*target), zoo.settings.threads)
    )
    return compose(
        target, bundles, images, head=row.head, sources=sources,  # type: ignore[arg-type]
        keep_anyway=row.keep_anyway, report=report, cancelled=stopped,
    )  # fmt: skip


def _bundle(zoo: Zoo, module: ModuleRow) -> Bundle:
    full = next(bundle for bundle in module.bundles if bundle.payload == "full")
    with verified_file(zoo.store, full.key, full.digest) as path:
        return read_bundle(path)


def _publish(zoo: Zoo, lease: Lease, made: Composition) -> None:
    """Put the file into the store, then end the row."""
    facts = {name: value for name, value in made.manifest.to_dict().items() if name != "target"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "composition.safetensors"
        digest = made.write(path).removeprefix("sha256:")
        stored = zoo.store.put(path, expected=digest)
        with zoo.database.write() as session:
            runs.succeed(session, lease, stored, facts)
            object_locks.put_again(session, zoo.store, key_of(digest), lambda: zoo.store.put(path, expected=digest))
