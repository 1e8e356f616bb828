"""A cache of huggingface_hub: refs, snapshots and blobs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from app.imports.sources import parse
from app.sources.found import Found, Rules
from app.sources.resolving import found_at

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fill(cache: Path, name: str, files: dict[str, bytes | dict[str, Any]], branch: str = "main") -> None:
    """Put a repository into the cache as huggingface_hub does."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    for place in (folder / "blobs", folder / "refs", snapshot):
        place.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / branch).write_text(COMMIT)
    for file, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / file).symlink_to(Path("../../blobs") / blob.name)


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `HF_HUB_OFFLINE=1`, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


class Importing:
    """Imports from one cache; the files last as long as the object."""

    def __init__(self, cache: Path) -> None:
        self.cache, self._kept = cache, []  # type: ignore[var-annotated]
        self.own_machine = False

    def __call__(self, text: str) -> Found:
        block = found_at(parse(text), Rules(cache_dir=self.cache, own_machine=self.own_machine))
        self._kept.append(block)
        return block.__enter__()
