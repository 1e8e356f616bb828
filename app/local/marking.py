"""Watermark keys on the user's machine; a key is never sent to a service."""

import os
import secrets
from pathlib import Path

from app.local.origin import origin_of_file
from pnc_core.analysis.watermark import Proof, proof_in_origin
from pnc_core.errors import ConfigError
from pnc_core.module.watermark import KEY_BYTES, Mark


def make_mark(path: Path) -> Mark:
    """Create a mark and write its key to a file that only its owner can read.

    Raises:
        FileExistsError: the file exists; it is not overwritten.
    """
    mark = Mark(secrets.token_bytes(KEY_BYTES))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(mark.key.hex() + "\n")
    return mark


def read_mark(path: Path) -> Mark:
    """Read the key of a mark.

    Raises:
        ConfigError: the file does not hold a key.
    """
    try:
        return Mark(bytes.fromhex(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ConfigError(f"{path}: expected {2 * KEY_BYTES} hexadecimal digits, got other text ({error})") from None


def proof_of_file(suspect: Path, source: Path, mark: Mark) -> Proof:
    """Test how well the channels that a file copies from a source agree with a mark.

    Args:
        suspect: Weights or a full bundle.
        source: Weights of the source.
        mark: The owner's mark.

    Raises:
        PncError: a file is invalid, or the two files have no comparable layers.
        OSError: a file cannot be read.
    """
    return proof_in_origin(mark, origin_of_file(suspect, source))
