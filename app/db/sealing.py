"""Secrets that must be kept readable, such as those that sign webhooks' messages, encrypted where they lie.

Fernet: AES-128 in CBC with an HMAC, from the library `cryptography`. The first key seals, all of them open, so that a
new key can be put before an old one; `app.access.secrets_at_rest` then seals everything anew.
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
"""Before every encrypted text."""
_SEALER = "sealer"
_MAKE = "make one with `openssl rand -base64 32 | tr +/ -_`"


class Sealer:
    """Encrypts and decrypts short texts.

    Args:
        keys: 32 random bytes each in URL-safe base64, the newest first; at least one.
        setting: Where they are from, for messages.

    Raises:
        Misconfigured: one of them is no key.
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
        """Decrypt it.

        Raises:
            Misconfigured: none of the keys has sealed it.
        """
        try:
            return self._all.decrypt(sealed.removeprefix(SEALED)).decode()
        except InvalidToken:
            raise Misconfigured(
                f"{self.setting}: expected the key that has sealed the secrets in the database, got another; "
                "bring that key back, or give these secrets up with `pnc migrate --forget-secrets`"
            ) from None

    def is_newest(self, sealed: str) -> bool:
        """Whether the first key has sealed it."""
        with suppress(InvalidToken):
            self._newest.decrypt(sealed.removeprefix(SEALED))
            return True
        return False


def sealer_of(settings: Settings, *, make: bool) -> Sealer | None:
    """What the settings give keys for; None: for nothing.

    Args:
        settings: The keys, or the file that they lie in.
        make: Make a key where none is given, in the data directory: right for who shares the database with nobody.

    Raises:
        Misconfigured: the file cannot be read, or holds no keys.
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
        raise Misconfigured(f"{setting}: expected a file of keys, got none; {_MAKE}, a line each") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{setting}: expected a file of keys that can be read, got: {error}; {_MAKE}") from None


def lend(session: Session, sealer: Sealer | None) -> None:
    """Let a session's work seal and open."""
    session.info[_SEALER] = sealer


def of(session: Session) -> Sealer:
    """What a session's work seals and opens with.

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
    """The file appears whole; of two processes that make it at once the first wins."""
    handle, half = tempfile.mkstemp(dir=path.parent)  # with permissions for its owner alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(half, path)
    finally:
        Path(half).unlink()
