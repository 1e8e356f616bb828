"""Write files atomically."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`; at the end of the block it replaces `path`.

    If the block fails, `path` keeps its old content. Every call has its own temporary path. The file does not exist
    yet: the caller creates it, with the permissions that it needs.
    """
    half = path.with_name(f"{path.name}.{uuid4().hex}.half")
    try:
        yield half
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
