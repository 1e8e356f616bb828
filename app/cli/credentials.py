"""Keys that `pnc login` keeps: one for each address of a service, in a file that only its owner can read."""

import json
import os
from pathlib import Path


def path() -> Path:
    """Where they lie."""
    from platformdirs import user_config_dir

    return Path(user_config_dir("pnc-zoo")) / "keys.json"


def find(url: str) -> str | None:
    """The key for a service, if there is one; the environment's goes before it."""
    return os.environ.get("PNC_KEY") or _read().get(_address(url))


def keep(url: str, key: str | None) -> Path:
    """Keep a key for a service, or forget it; returns the file."""
    kept = {address: secret for address, secret in _read().items() if address != _address(url)}
    if key is not None:
        kept[_address(url)] = key
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    half = file.with_suffix(".half")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump(kept, stream)
    half.replace(file)
    return file


def _read() -> dict[str, str]:
    try:
        kept = json.loads(path().read_text())
    except (OSError, ValueError):
        return {}
    return {str(a): str(s) for a, s in kept.items()} if isinstance(kept, dict) else {}


def _address(url: str) -> str:
    return url.rstrip("/")
