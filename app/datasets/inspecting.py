"""Decode every image of a dataset once, in child processes that a crafted image may crash.

A child runs `python -m app.datasets.inspecting`. It opens the file, decodes images for about a second, and answers with
their facts; it keeps its place for the next request. If a child dies, the image that it was at is found and named.
"""

import heapq
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.datasets.looking import BAD, FACTS, TILE, Facts, look, tile
from app.process.child_pool import ChildPool, serve
from pnc_core.errors import DataError

SECONDS = 30.0
"""Time limit of one request to a child: `STINT` and one image."""
STINT = 1.0
"""Seconds after which a child answers."""
MEMORY = 2 * 1024**3
"""Bytes of address space of a child."""
MOST_DEATHS = 20
"""Images that may end their process before the whole file is refused."""
SAMPLES, SAMPLED = 8, 200
"""Samples of a class, and classes that have samples."""
MOST_FAULTS = 1000
"""Faults of one answer; longer reasons are cut."""


@dataclass
class Stretch:
    """Facts of consecutive rows."""

    facts: list[Facts] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    """Reasons by row."""
    tiles: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """Label and sample by row: candidates for the samples of a class."""


def pack(found: Stretch) -> bytes:
    """A stretch as bytes."""
    order = list(found.tiles)
    facts = b"".join(part.tobytes() for part in found.facts)
    head = {
        "rows": len(facts) // FACTS.itemsize,
        "faults": found.faults,
        "tiles": [(row, found.tiles[row][0]) for row in order],
    }
    tiles = b"".join(found.tiles[row][1] for row in order)
    return zlib.compress(b"".join((json.dumps(head).encode(), b"\n", facts, tiles)), 1)


def unpack(content: bytes) -> Stretch:
    """The stretch that `pack` made bytes of."""
    plain = zlib.decompress(content)
    start = plain.index(b"\n") + 1
    head = json.loads(plain[:start])
    stop, size = start + head["rows"] * FACTS.itemsize, TILE * TILE * 3
    tiles = {
        int(row): (int(label), plain[stop + number * size : stop + (number + 1) * size])
        for number, (row, label) in enumerate(head["tiles"])
    }
    faults = {int(row): reason for row, reason in head["faults"].items()}
    return Stretch([np.frombuffer(plain[start:stop], FACTS)], faults, tiles)


class Inspectors:
    """Children that look at the images of one file. Several threads may use them.

    Args:
        path: The Parquet file.
        labels: Label of each row for samples; -1: none.
        children: Most children at once.
    """

    def __init__(self, path: Path, labels: NDArray[np.int64], children: int) -> None:
        self._path, self._labels, self._deaths = str(path), labels, 0
        self._pool = ChildPool("app.datasets.inspecting", children, SECONDS, MEMORY)

    def close(self) -> None:
        """End the children."""
        self._pool.close()

    def look_at(self, start: int, end: int, step: Callable[[int], None]) -> Stretch:
        """Look at rows.

        Args:
            start: First row.
            end: Row after the last.
            step: Called with the number of rows of each answer; it may raise to stop.

        Raises:
            DataError: too many images end their process, or the file cannot be read.
        """
        found = Stretch()
        careful = 0  # rows up to here are asked one by one, because one of them ended a process
        while start < end:
            try:
                done = self._ask(found, start, end, most=1 if start < careful else end - start)
            except OSError as error:
                if start >= careful:
                    careful = end
                    continue
                self._bury(found, start, error)
                done, careful = start + 1, start + 1
            step(done - start)
            start = done
        return found

    def _ask(self, found: Stretch, start: int, end: int, *, most: int) -> int:
        """Add the rows of one answer; returns the row after the last."""
        wanted = self._labels[start:end]
        head = {
            "path": self._path, "start": start, "end": end, "most": most, "labels": [int(label) for label in wanted]
        }  # fmt: skip
        answer, body = self._pool.ask(json.dumps(head).encode(), b"")
        said = json.loads(answer)
        if "problem" in said:
            raise DataError(said["problem"])
        count = int(said["rows"])
        if not 0 < count <= end - start:
            raise DataError(f"expected facts of at most {end - start} rows, got {count}")
        size = count * FACTS.itemsize
        found.facts.append(np.frombuffer(bytes(body[:size]), FACTS))
        found.faults |= {int(row): str(reason)[:MOST_FAULTS] for row, reason in said["faults"]}
        tiles = bytes(body[size:])
        for number, (row, label) in enumerate(said["tiles"]):
            found.tiles[int(row)] = int(label), tiles[number * TILE * TILE * 3 : (number + 1) * TILE * TILE * 3]
        return start + count

    def _bury(self, found: Stretch, row: int, error: OSError) -> None:
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise DataError(
                f"expected images that can be decoded, got more than {MOST_DEATHS} that end the process that decodes "
                "them; save them again"
            )
        facts = np.zeros(1, FACTS)
        facts["row"], facts["state"] = row, BAD
        found.facts.append(facts)
        found.faults[row] = (
            f"expected an image that can be decoded within {SECONDS:g} s and {MEMORY // 1024**2} MiB, got one that "
            f"ended its process ({type(error).__name__}); save it again, or smaller"
        )


class Best:
    """The samples of each class: images with the smallest digests, which is a random choice that can be repeated."""

    def __init__(self) -> None:
        self._kept: dict[int, list[tuple[int, int]]] = {}

    def takes(self, label: int, digest: int, row: int) -> bool:
        """Whether an image is among the samples so far; equal images are taken once."""
        if not -1 <= label < SAMPLED:
            return False
        kept = self._kept.setdefault(label, [])
        if any(-worse == digest for worse, _ in kept):
            return False
        if len(kept) < SAMPLES:
            heapq.heappush(kept, (-digest, row))
            return True
        if -digest <= kept[0][0]:
            return False
        heapq.heapreplace(kept, (-digest, row))
        return True

    def rows(self) -> Mapping[int, list[int]]:
        """Rows of the samples by label."""
        return {label: [row for _, row in sorted(kept, reverse=True)] for label, kept in self._kept.items()}


class _Place:
    """The place of a child in a file."""

    def __init__(self) -> None:
        self._path, self._next, self._end = "", -1, -1
        self._images: Iterator[tuple[int, bytes]] = iter(())
        self._best = Best()

    def answer(self, head: bytearray, _: bytearray) -> tuple[bytes, bytes]:
        from app.datasets.parquet import Unreadable

        asked = json.loads(head)
        try:
            return self._look(asked)
        except Unreadable as error:
            return json.dumps({"problem": str(error)}).encode(), b""

    def _look(self, asked: Mapping[str, Any]) -> tuple[bytes, bytes]:
        start, end, labels = asked["start"], asked["end"], asked["labels"]
        self._go_to(asked["path"], start, end)
        until, facts, faults, tiles, places = time.monotonic() + STINT, [], [], [], []
        for row, raw in self._images:
            seen = look(row, raw)
            facts.append(seen.facts.tobytes())
            self._next = row + 1
            label, digest = labels[row - start], int(seen.facts["digest"][0])
            if seen.fault:
                faults.append((row, seen.fault))
            if seen.image is not None and self._best.takes(label, digest, row):
                tiles.append(tile(seen.image))
                places.append((row, label))
            if time.monotonic() > until or row + 1 == end or len(facts) == asked["most"]:
                break
        said = {"rows": len(facts), "faults": faults, "tiles": places}
        return json.dumps(said).encode(), b"".join((*facts, *tiles))

    def _go_to(self, path: str, start: int, end: int) -> None:
        from app.datasets.parquet import ImageTable

        if (path, start) == (self._path, self._next) and end <= self._end:
            return
        self._path, self._next, self._end = path, start, end
        self._images = ImageTable(Path(path)).images_from(start, end)


if __name__ == "__main__":
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    serve(_Place().answer, niceness=5)
