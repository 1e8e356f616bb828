"""Look into a stranger's dataset in a process of its own, with little memory and little time.

The library that reads Parquet is large and written in C++: what a crafted file does to it must happen to a process
that is worth nothing. `python -m app.datasets.sandbox` is that process: the file is its standard input.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from app.datasets import service as datasets
from app.datasets.service import Contents
from app.errors import Invalid, Problem
from app.process.child_pool import bare_environment, confine
from app.process.children import python
from app.store.objects import read_chunks

SECONDS = 30
"""Of the processor's time; labels of ten million images take two, and images one a GB."""
SLOWEST = 64 * 1024**2
"""Bytes of the file that are read in a second at least; a large file is given the time that it takes."""
MEMORY = 2 * 1024**3
"""Bytes that may be addressed; the library itself reserves most of them."""


def inspect(file: BinaryIO, classes: Sequence[str] | None, staging: Path, most_bytes: int | None = None) -> Contents:
    """Check a Parquet file and count its images; see `datasets.inspect`.

    Args:
        file: The file, from the store.
        classes: Class names, instead of those in the file.
        staging: Where a file that is no plain file of this machine is put meanwhile.
        most_bytes: So many bytes of images at most, unpacked; None: any number.

    Raises:
        Invalid: it is no such file, or reading it took more than it may take.
    """
    with tempfile.TemporaryFile(dir=staging) as copy:
        try:
            given = file.fileno()
        except OSError:
            for chunk in read_chunks(file, sys.maxsize):
                copy.write(chunk)
            copy.flush()
            given = copy.fileno()
        os.lseek(given, 0, os.SEEK_SET)
        asked = json.dumps([list(classes) if classes is not None else None, most_bytes])
        seconds = _seconds(given)
        try:
            done = subprocess.run(  # noqa: S603 - our own module, no shell
                python("app.datasets.sandbox", str(given)),
                input=asked.encode(),
                capture_output=True,
                pass_fds=[given],
                timeout=4 * seconds,
                env={**bare_environment(), "ARROW_DEFAULT_MEMORY_POOL": "system"},
                check=False,
                start_new_session=True,  # a Ctrl-C that ends the service is no fault of the dataset
            )
        except subprocess.TimeoutExpired:
            raise _too_much("more time", seconds) from None
    if done.returncode != 0:
        raise _too_much(f"a process that ended with {done.returncode}", seconds)
    return _told(json.loads(done.stdout))


def _told(answer: dict[str, object]) -> Contents:
    if "problems" in answer:
        raise Invalid([Problem(**problem) for problem in answer["problems"]])  # type: ignore[attr-defined]
    return Contents(answer["rows"], tuple(answer["classes"]), answer["counts"])  # type: ignore[arg-type]


def _seconds(file: int) -> int:
    """Of the processor's time, for a file."""
    return SECONDS + os.fstat(file).st_size // SLOWEST


def _too_much(got: str, seconds: int) -> Invalid:
    limits = f"{seconds} s and {MEMORY // 1024**2} MiB"
    detail = f"expected a Parquet file that can be read within {limits}, got {got}; write it again, in smaller groups"
    return Invalid.at("/upload", "invalid_parquet", detail)


def main() -> None:
    """Entry of the child process."""
    confine(MEMORY)
    seconds = _seconds(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    classes, most_bytes = json.load(sys.stdin)
    try:
        with os.fdopen(int(sys.argv[1]), "rb") as file:
            answer: dict[str, object] = asdict(datasets.inspect(file, classes, most_bytes))
    except Invalid as error:
        answer = {"problems": [asdict(problem) for problem in error.problems]}
    except MemoryError:
        answer = {"problems": [asdict(problem) for problem in _too_much("more memory", seconds).problems]}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
