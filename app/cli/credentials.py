"""Keys that `pnc login` keeps: one for each address of a service, in a file that only its owner can read."""

import json
import os
import sys
from pathlib import Path

from pnc_core.files import written_whole


def path() -> Path:
    """Where they lie."""
    from platformdirs import user_config_dir

    return Path(user_config_dir("pnc-zoo")) / "keys.json"


def find(url: str) -> str | None:
    """The key for a service, if there is one; the environment's goes before it.

    Raises:
        ValueError: the file of keys is damaged.
    """
    return os.environ.get("PNC_KEY", "").strip() or _read().get(_address(url))


def keep(url: str, key: str | None) -> Path:
    """Keep a key for a service, or forget it; returns the file.

    Raises:
        ValueError: the file of keys is damaged; it is left as it is, since nobody can give its other keys again.
    """
    kept = {address: secret for address, secret in _read().items() if address != _address(url)}
    if key is not None:
        kept[_address(url)] = key
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _close(file.parent)
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with written_whole(file) as half, os.fdopen(os.open(half, new, 0o600), "w") as stream:
        json.dump(kept, stream)
    return file


def _close(file: Path) -> bool:
    """Take permissions of others away, as after a careless copy; says whether there were any."""
    found = file.stat()
    if os.name != "posix" or found.st_uid != os.geteuid() or not found.st_mode & 0o077:
        return False
    file.chmod(found.st_mode & 0o700)
    return True


def _read() -> dict[str, str]:
    try:
        if _close(path()):
            sys.stderr.write(f"warning: other users could read the keys in {path()}; now they cannot\n")
        kept = json.loads(path().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        kept = None
    if not isinstance(kept, dict):
        raise ValueError(f"{path()}: expected the keys that `pnc login` keeps, got other text; mend it or put it away")
    return {str(address): str(secret) for address, secret in kept.items()}


def _address(url: str) -> str:
    return url.rstrip("/")
