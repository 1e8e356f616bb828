"""Marks on the user's own machine: the key never leaves it."""

import os
import secrets
from pathlib import Path

from app.local.origin import origin_of_file
from pnc_core.analysis.watermark import Proof, proof_in_origin
from pnc_core.errors import ConfigError
from pnc_core.module.watermark import KEY_BYTES, Mark


def make_mark(path: Path) -> Mark:
    """Write the key of a new mark, which only its owner can read.

    Raises:
        FileExistsError: the file is there; nothing is overwritten.
    """
    mark = Mark(secrets.token_bytes(KEY_BYTES))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(mark.key.hex() + "\n")
    return mark


def read_mark(path: Path) -> Mark:
    """The mark whose key a file holds.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        return Mark(bytes.fromhex(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ConfigError(
            f"{path}: expected {2 * KEY_BYTES} hexadecimal digits, got something else ({error})"
        ) from None


def proof_of_file(suspect: Path, source: Path, mark: Mark) -> Proof:
    """How well the channels that a file has of a source agree with a mark.

    Raises:
        PncError: a file cannot be read, or the two have nothing that can be compared.
        OSError: a file cannot be read.
    """
    return proof_in_origin(mark, origin_of_file(suspect, source))
