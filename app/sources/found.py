"""A network that was found at its source: specification, weights as safetensors, and origin."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pnc_client.schemas.imports import DEFAULT_HOSTS
from pnc_client.schemas.models import Origin
from pnc_core.config import NetworkSpec

GIB = 1024**3


def _silent(done: int, total: int) -> None:
    """Report nothing."""


OWN = "pnc"
"""Key of `config.json` with the specification that `pnc models export` writes."""


@dataclass(frozen=True)
class Rules:
    """Limits of downloads, and the function that hears of their progress."""

    hosts: tuple[str, ...] = DEFAULT_HOSTS
    """Hosts that files may come from, redirects included."""
    max_bytes: int = 8 * GIB
    """Most bytes of one file."""
    own_machine: bool = False
    """Whether this is the user's own machine: private addresses, its proxy and files of torch.save are allowed."""
    cache_dir: Path | None = None
    """Cache of huggingface_hub; none: its own default."""
    report: Callable[[int, int], None] = _silent
    """Called with the received and the total bytes (0: unknown); may raise to stop the download."""
    note: Callable[[str], object] = field(default=lambda text: None)
    """Told each choice and change."""


@dataclass(frozen=True)
class Found:
    """A network at its source."""

    weights: Path
    """Safetensors for `spec`; without a spec any file of weights."""
    origin: Origin
    spec: NetworkSpec | None = None
    """None: the source is a bare file of weights."""
    licence: str = ""


def digest_of(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
