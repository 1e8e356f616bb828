"""Create the passwords of the containers once, as files that only the service's containers can read.

make_secrets.py DIRECTORY
"""

import json
import secrets
import sys
from pathlib import Path

BUCKET = "pnc"


def main(directory: Path) -> None:
    """Write missing passwords and all configuration files; existing passwords are kept."""
    directory.mkdir(parents=True, exist_ok=True)
    postgres, redis, key, secret, internal, sealing = (
        _read_or_create(directory / name)
        for name in ("postgres", "redis", "store-key", "store-secret", "internal-key", "secret-key")
    )
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "pnc", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
    _write(directory / "store.json", json.dumps({"identities": [identity]}))
    _write(directory / "redis.conf", f'requirepass {redis}\nsave ""\nappendonly no\nprotected-mode no\n')
    settings = {
        "PNC_DATABASE_URL": f"postgresql+psycopg://pnc:{postgres}@postgres:5432/pnc",
        "PNC_BROKER_URL": f"redis://:{redis}@redis:6379/0",
        "PNC_STORE_URL": f"s3://{BUCKET}",
        "PNC_STORE_ENDPOINT": "http://store:8333",
        "PNC_STORE_PUBLIC_ENDPOINT": "http://127.0.0.1:8333",
        "PNC_INTERNAL_KEY": internal,
        "PNC_SECRET_KEY": f"{sealing}=",
        "PNC_PUBLISHED_ON_LOOPBACK": "true",
        "PNC_DATA_DIR": "/data",
        "PNC_LOG_FORMAT": "json",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    _write(directory / "settings.json", json.dumps(settings))


def _read_or_create(path: Path) -> str:
    if not path.exists():
        _write(path, secrets.token_urlsafe(32))
    return path.read_text()


def _write(path: Path, text: str) -> None:
    half = path.with_suffix(".half")
    half.write_text(text)
    half.chmod(0o444)  # world-readable: only our containers mount the volume, and their users differ
    half.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
