"""Inspects a dataset: decodes every image once in confined processes, and finds oddities of the images."""

import io
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.datasets import inspections
from app.datasets.inspecting import SAMPLED, Best, Inspectors, Stretch, pack, unpack
from app.datasets.looking import BAD, FACTS, TILE, Facts
from app.datasets.parquet import ImageTable, Unreadable
from app.datasets.survey import Survey, survey
from app.datasets.tables import DatasetRow
from app.db.leases import Lease
from app.errors import ZooError
from app.process.resources import processors
from app.store.objects import verified_file
from app.zoo import Zoo
from pnc_core.errors import Cancelled, PncError
from workers.retry import retrying

log = logging.getLogger(__name__)
ROWS = 2048
"""Rows of a part, as far as row groups allow: some seconds of work are lost when an inspection is interrupted."""
STRETCHES = 16
"""Parts of one large row group at most: each reads the group from its beginning."""
Rows = NDArray[np.int64]


def run_inspection(zoo: Zoo, lease: Lease, stopped: Callable[[], bool]) -> None:
    """Inspect a dataset, from where an earlier attempt ended; if stopped, end after the parts at work.

    Raises:
        LeaseLost: another worker has the dataset now.
    """
    with zoo.database.read() as session:
        dataset = session.get_one(DatasetRow, lease.id)
        have = dict(inspections.parts(session, lease.id))
    try:
        with verified_file(zoo.store, dataset.key, dataset.digest) as path:
            table = ImageTable(path)
            labels = _labels(table, dataset)
            _look(zoo, lease, path, _missing(table, have), labels, stopped)
            _finish(zoo, lease, dataset, table, labels)
    except Cancelled:
        return
    except (PncError, ZooError, Unreadable) as error:
        problem = {"code": getattr(error, "code", "invalid_parquet"), "detail": str(error)}
        with zoo.database.write() as session:
            inspections.fail(session, lease, problem)


def stretches(group_rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First rows and rows after the last of the parts: whole row groups, or pieces of large ones."""
    first = last = 0
    for count in group_rows:
        if last > first and last - first + count > ROWS:
            yield first, last
            first = last
        if count > 2 * ROWS:
            step = max(ROWS, -(-count // STRETCHES))
            yield from ((last + at, min(last + count, last + at + step)) for at in range(0, count, step))
            first = last + count
        last += count
    if last > first:
        yield first, last


def _missing(table: ImageTable, have: dict[int, int]) -> list[tuple[int, int]]:
    return [(first, last) for first, last in stretches(table.group_rows) if have.get(first) != last - first]


def _labels(table: ImageTable, dataset: DatasetRow) -> Rows:
    """int64 (rows,); -1 everywhere without labels."""
    if not dataset.classes:
        return np.full(table.rows, -1, np.int64)
    columns = [np.asarray(batch.labels).astype(np.int64) for batch in table.batches(images=False)]
    return np.concatenate([np.empty(0, np.int64), *columns])


def _look(
    zoo: Zoo, lease: Lease, path: Path, missing: Sequence[tuple[int, int]], labels: Rows, stopped: Callable[[], bool]
) -> None:
    """Look at the missing rows in several children, and keep each part as soon as it is complete.

    Raises:
        Cancelled: the worker is to stop.
    """
    children = max(1, min(processors.share_of(1), 8))
    inspectors, ending = Inspectors(path, labels, children), threading.Event()

    def step(_: int) -> None:
        if ending.is_set():
            raise Cancelled("the inspection was stopped")

    rest = iter(missing)
    with ThreadPoolExecutor(children) as pool:
        working: dict[Future[Stretch], int] = {}
        try:
            while True:
                for first, last in islice(rest, 2 * children - len(working)):
                    working[pool.submit(inspectors.look_at, first, last, step)] = first
                if not working:
                    return
                done, _ = wait(working, timeout=0.5, return_when=FIRST_COMPLETED)
                for part in done:
                    _keep(zoo, lease, working.pop(part), part.result())
                if stopped():
                    raise Cancelled("the inspection was stopped")
        finally:
            ending.set()
            for part in working:
                part.cancel()
            wait(working)
            inspectors.close()


@retrying
def _keep(zoo: Zoo, lease: Lease, first: int, found: Stretch) -> None:
    rows = sum(len(part) for part in found.facts)
    with zoo.database.write() as session:
        inspections.add_part(session, lease, first, rows, pack(found))


def _finish(zoo: Zoo, lease: Lease, dataset: DatasetRow, table: ImageTable, labels: Rows) -> None:
    facts, faults, samples = _gathered(zoo, lease, labels)
    found = survey(facts, labels)
    named = table.names_of(list(faults))
    listed = [(row, named.get(row, ""), reason) for row, reason in faults.items()]
    good = labels[facts["state"] != BAD]
    tally = np.bincount(good[good >= 0], minlength=len(dataset.classes))
    counts = dict(zip(dataset.classes, map(int, tally), strict=True))
    with zoo.database.write() as session:
        inspections.finish(session, lease, _findings(found, dataset), counts, listed, samples)


def _gathered(zoo: Zoo, lease: Lease, labels: Rows) -> tuple[Facts, dict[int, str], dict[int, bytes]]:
    """Facts of all rows in order, faults, and the pictures of samples."""
    facts, faults = np.zeros(len(labels), FACTS), dict[int, str]()
    best, tiles = Best(), dict[int, bytes]()
    with zoo.database.read() as session:
        for first, rows in inspections.parts(session, lease.id):
            part = unpack(inspections.part(session, lease.id, first))
            facts[first : first + rows] = part.facts[0]
            faults |= part.faults
            for row, (label, picture) in part.tiles.items():
                if best.takes(label, int(facts["digest"][row][0]), row):
                    tiles[row] = picture
            kept = {row for rows in best.rows().values() for row in rows}
            tiles = {row: picture for row, picture in tiles.items() if row in kept}
    chosen = {label: rows for label, rows in best.rows().items() if label < SAMPLED}
    return (
        facts,
        dict(sorted(faults.items())),
        {label: _strip([tiles[row] for row in rows]) for label, rows in chosen.items()},
    )


def _strip(tiles: Sequence[bytes]) -> bytes:
    """Samples side by side, as WebP."""
    strip = Image.new("RGB", (TILE * len(tiles), TILE))
    for place, pixels in enumerate(tiles):
        strip.paste(Image.frombytes("RGB", (TILE, TILE), pixels), (TILE * place, 0))
    file = io.BytesIO()
    strip.save(file, "WEBP", quality=80)
    return file.getvalue()


def _findings(found: Survey, dataset: DatasetRow) -> dict[str, Any]:
    names = dataset.classes
    return {
        "good": found.good,
        "exact": found.exact,
        "near": found.near,
        "across": found.across,
        "examples": [list(pair) for pair in found.examples],
        "constant": found.constant,
        "distinct": {names[label]: count for label, count in found.distinct.items() if label >= 0},
        "sizes": found.sizes,
    }
