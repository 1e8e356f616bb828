"""A folder of exported programs, so that a restarted process or another one on this machine does not export again."""

import hashlib
import logging
import os
from pathlib import Path

from pnc_core.files import written_whole

log = logging.getLogger(__name__)
_SUFFIX = ".onnx"
_DIGEST = hashlib.sha256().digest_size


class ProgramFiles:
    """Programs by key. Each file starts with the digest of its bytes. Several processes may use the folder.

    Args:
        folder: The folder, which is made when the first program is added.
        most: Most bytes of all files; the programs that were used least recently are removed. 0: no program is kept.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most

    def get(self, key: str) -> bytes | None:
        """The program; None: not in the folder, or damaged, which removes it."""
        path = self._path(key)
        try:
            raw = path.read_bytes()
            if hashlib.sha256(raw[_DIGEST:]).digest() != raw[:_DIGEST]:
                log.warning("%s: expected the bytes that were written, got others; the program is made again", path)
                path.unlink(missing_ok=True)
                return None
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s: could not be read: %s", path, error)
            return None
        return raw[_DIGEST:]

    def put(self, key: str, program: bytes) -> None:
        """Add a program. A failure is only logged, because the folder saves time and nothing else."""
        if len(program) + _DIGEST > self._most:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with written_whole(self._path(key)) as half:
                half.write_bytes(hashlib.sha256(program).digest() + program)
            self._shrink()
        except OSError as error:
            log.warning("%s: a program could not be written: %s", self._folder, error)

    def remove(self, key: str) -> None:
        """Remove a program that cannot be used."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _shrink(self) -> None:
        found = [(path, path.stat()) for path in self._folder.iterdir() if path.is_file()]
        total = sum(about.st_size for _, about in found)
        for path, about in sorted(found, key=lambda pair: pair[1].st_mtime):
            if total <= self._most:
                break
            path.unlink(missing_ok=True)
            total -= about.st_size
