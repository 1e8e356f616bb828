"""Keys stored by `pnc login`: one for each service address, in a file that only its owner can read."""

import json
import os
import sys
from pathlib import Path

from pnc_core.files import written_whole


def path() -> Path:
    """The file of keys."""
    from platformdirs import user_config_dir

    return Path(user_config_dir("pnc-zoo")) / "keys.json"


def find(url: str) -> str | None:
    """The key for a service: PNC_KEY, or else the stored key; None if there is no key.

    Raises:
        ValueError: the file of keys is damaged.
    """
    return os.environ.get("PNC_KEY", "").strip() or _read().get(_address(url))


def keep(url: str, key: str | None) -> Path:
    """Store the key for a service, or delete it if `key` is None; returns the file.

    Raises:
        ValueError: the file of keys is damaged; it is not overwritten, because its other keys cannot be issued again.
    """
    kept = {address: secret for address, secret in _read().items() if address != _address(url)}
    if key is not None:
        kept[_address(url)] = key
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_private(file.parent)
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with written_whole(file) as part, os.fdopen(os.open(part, new, 0o600), "w") as stream:
        json.dump(kept, stream)
    return file


def _make_private(file: Path) -> bool:
    """Remove the permissions of other users; returns whether other users had any."""
    found = file.stat()
    if os.name != "posix" or found.st_uid != os.geteuid() or not found.st_mode & 0o077:
        return False
    file.chmod(found.st_mode & 0o700)
    return True


def _read() -> dict[str, str]:
    try:
        if _make_private(path()):
            sys.stderr.write(f"warning: other users could read the keys in {path()}; now they cannot\n")
        kept = json.loads(path().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        kept = None
    if not isinstance(kept, dict):
        raise ValueError(
            f"{path()}: expected the keys that `pnc login` stores, got other text; repair the file or move it away"
        )
    return {str(address): str(secret) for address, secret in kept.items()}


def _address(url: str) -> str:
    return url.rstrip("/")
