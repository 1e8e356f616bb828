"""Encryption of secrets in the database that the service must read, such as keys that sign webhook messages.

Fernet (AES-128 in CBC with an HMAC) of the library `cryptography`. The first key encrypts, and all keys decrypt, so
that an operator can put a new key before the old one. `app.access.secrets_at_rest` then encrypts everything again.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy.orm import Session

from app.errors import Misconfigured
from app.process.permissions import KEY_FILE
from app.settings import Settings

SEALED = "sealed:"
"""Prefix of every encrypted text."""
_SEALER = "sealer"
_MAKE = "create one with `openssl rand -base64 32 | tr +/ -_`"


class Sealer:
    """Encrypts and decrypts short texts.

    Args:
        keys: At least one key, the newest first; each 32 random bytes in URL-safe base64.
        setting: Name of the setting that holds the keys, for messages.

    Raises:
        Misconfigured: a key is malformed.
    """

    def __init__(self, keys: Sequence[str], setting: str) -> None:
        self.setting = setting
        try:
            fernets = [Fernet(key) for key in keys]
            self._newest, self._all = fernets[0], MultiFernet(fernets)
        except (ValueError, IndexError):
            detail = f"{setting}: expected keys of 32 random bytes in URL-safe base64, got other text; {_MAKE}"
            raise Misconfigured(detail) from None

    def seal(self, text: str) -> str:
        """Encrypt a text."""
        return SEALED + self._newest.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Decrypt a text.

        Raises:
            Misconfigured: no key decrypts the text.
        """
        try:
            return self._all.decrypt(sealed.removeprefix(SEALED)).decode()
        except InvalidToken:
            raise Misconfigured(
                f"{self.setting}: expected the key that encrypted the secrets in the database, got another; "
                "bring that key back, or replace these secrets with `pnc migrate --forget-secrets`"
            ) from None

    def is_newest(self, sealed: str) -> bool:
        """Whether the first key has encrypted the text."""
        with suppress(InvalidToken):
            self._newest.decrypt(sealed.removeprefix(SEALED))
            return True
        return False


def sealer_of(settings: Settings, *, make: bool) -> Sealer | None:
    """The sealer with the keys of the settings; None: the settings give no key.

    Args:
        settings: The keys, or the file that holds them.
        make: Create a key in the data directory if the settings give none. Only for a database of this machine alone.

    Raises:
        Misconfigured: the file of keys cannot be read, or a key is malformed.
    """
    if settings.secret_key:
        return Sealer([key.strip() for key in settings.secret_key.split(",")], "PNC_SECRET_KEY")
    path = settings.secret_key_file or settings.data_dir / KEY_FILE
    setting = f"PNC_SECRET_KEY_FILE ({path})"
    try:
        if make and settings.secret_key_file is None and not path.exists():
            _make(path)
        return Sealer(path.read_text(encoding="ascii").split(), setting)
    except FileNotFoundError:
        if settings.secret_key_file is None:
            return None
        raise Misconfigured(f"{setting}: expected a file of keys, got none; {_MAKE}, one key a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{setting}: expected a file of keys that can be read, got: {error}; {_MAKE}") from None


def lend(session: Session, sealer: Sealer | None) -> None:
    """Give a session the sealer."""
    session.info[_SEALER] = sealer


def of(session: Session) -> Sealer:
    """The sealer of a session.

    Raises:
        Misconfigured: the settings give no key.
    """
    sealer: Sealer | None = session.info.get(_SEALER)
    if sealer is None:
        raise Misconfigured(
            f"PNC_SECRET_KEY: expected a key for secrets, the same on all machines of the service, got none; {_MAKE}"
        )
    return sealer


def is_sealed(text: str) -> bool:
    """Whether a text is encrypted."""
    return text.startswith(SEALED)


def _make(path: Path) -> None:
    """Create the key file in one step. If two processes create it at once, both use the first file."""
    handle, half = tempfile.mkstemp(dir=path.parent)  # readable by its owner only
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(half, path)
    finally:
        Path(half).unlink()
