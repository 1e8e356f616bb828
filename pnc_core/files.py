"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place at the end: who is stopped leaves what was there.

    Everyone who writes has a file of their own, which is not there yet: who opens it gives it the usual permissions.
    """
    half = path.with_name(f"{path.name}.{uuid4().hex}.half")
    try:
        yield half
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
