"""Seconds and memory of registering many images, with the inspection killed half-way and resumed.

    python -m benchmarks.registering [--images 100000] [--out docs/results/registering.json]

A folder of small JPEG files of ten classes is pushed as `pnc datasets push` does it, in this process and without HTTP,
and inspected as a worker does it, in a process of its own that is killed with SIGKILL when half of the rows are done.
"""

import argparse
import io
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from app.datasets import inspections
from app.datasets import service as datasets
from app.datasets.tables import DatasetRow
from app.db import engine
from app.process.resources import processors
from app.settings import Settings
from app.store import uploads
from app.zoo import Zoo, open_zoo
from pnc_client.parquet import write_parquet
from pnc_client.sources import open_images
from workers.inspecting import run_inspection

CLASSES, SIDE, BAD_EVERY, TWICE_EVERY = 10, 64, 1000, 50
"""Every thousandth file is cut in the middle, and every fiftieth is a copy of the one before it."""


def make_folder(root: Path, count: int) -> None:
    """Write JPEG files of random blocks."""
    rng, last = np.random.default_rng(0), b""
    for number in range(count):
        folder = root / f"class {number % CLASSES}"
        folder.mkdir(exist_ok=True)
        if number % TWICE_EVERY or not last:
            small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            file = io.BytesIO()
            small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            last = file.getvalue()
        half = len(last) // 2
        (folder / f"{number:07}.jpg").write_bytes(last[:half] if number % BAD_EVERY == BAD_EVERY - 1 else last)


class Peak:
    """Samples the memory of a process and its children: proportional set size, so that shared pages count once."""

    def __init__(self, pid: int) -> None:
        self._process, self._stop, self.bytes = psutil.Process(pid), threading.Event(), 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            try:
                family = [self._process, *self._process.children(recursive=True)]
                self.bytes = max(self.bytes, sum(one.memory_full_info().pss for one in family))
            except psutil.Error:
                continue


def _inspect(folder: Path) -> None:
    zoo = open_zoo(Settings(data_dir=folder))
    with zoo.database.write() as session:
        lease = inspections.claim(session, "benchmark")
    assert lease is not None
    run_inspection(zoo, lease, lambda: False)
    zoo.close()


def _run(zoo: Zoo, folder: Path, dataset: str, kill_at: int | None) -> dict[str, Any]:
    """Inspect in a process of its own; with `kill_at` kill it after so many rows."""
    child = multiprocessing.get_context("spawn").Process(target=_inspect, args=(folder,))
    began = time.monotonic()
    child.start()
    assert child.pid is not None
    with Peak(child.pid) as peak:
        while child.is_alive():
            child.join(0.25)
            if kill_at is not None and _rows(zoo, dataset) >= kill_at:
                os.kill(child.pid, signal.SIGKILL)
                child.join()
    if kill_at is not None:
        with zoo.database.write() as session:
            row = session.get_one(DatasetRow, dataset)
            row.lease_worker = row.lease_expires_at = None
    seconds = time.monotonic() - began
    return {"seconds": round(seconds, 1), "megabytes": round(peak.bytes / 1e6), "rows": _rows(zoo, dataset)}


def _rows(zoo: Zoo, dataset: str) -> int:
    with zoo.database.read() as session:
        return session.get_one(DatasetRow, dataset).inspected


def _timed(work: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    began = time.monotonic()
    with Peak(os.getpid()) as peak:
        result = work()
    return result, {"seconds": round(time.monotonic() - began, 1), "megabytes": round(peak.bytes / 1e6)}


def measure(count: int) -> dict[str, Any]:
    """Push, inspect until half, kill, and inspect the rest."""
    with tempfile.TemporaryDirectory() as name:
        root, folder, file = Path(name, "images"), Path(name, "zoo"), Path(name, "images.parquet")
        root.mkdir()
        make_folder(root, count)
        zoo = open_zoo(Settings(data_dir=folder))
        engine.migrate(zoo.database)
        images = open_images(root)
        rows = ((item.label, item.raw, item.name) for item in images)
        _, writing = _timed(lambda: write_parquet(file, rows, images.classes))

        def register() -> str:
            draft = uploads.draft_of(file, 2**40)
            with zoo.database.write() as session:
                upload = uploads.declare(session, draft).id
            stored = zoo.store.put(file, expected=draft.digest)
            with zoo.database.write() as session, file.open("rb") as stream:
                uploads.complete(session, upload, stored)
                contents = datasets.inspect(stream)
                return datasets.register(session, name="many", upload_id=upload, contents=contents).id

        dataset, registering = _timed(register)
        first = _run(zoo, folder, dataset, count // 2)
        second = _run(zoo, folder, dataset, None)
        with zoo.database.read() as session:
            row = session.get_one(DatasetRow, dataset)
            findings = {**(row.findings or {}), "inspection": row.inspection}
        zoo.close()
        size = file.stat().st_size
    found = {name: findings[name] for name in ("inspection", "good", "unreadable", "exact", "near", "constant")}
    return {
        "images": count, "side": SIDE, "bytes": size, "cores": processors.share_of(1), "writing": writing,
        "registering": registering, "killed": first, "resumed": second, "found": found,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    text = json.dumps(measure(asked.images), indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
