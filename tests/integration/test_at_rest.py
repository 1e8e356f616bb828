"""A data directory of an earlier version is readable by everybody; the service protects it when it starts."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

from standardwebhooks import Webhook

from pnc_client import Client
from tests.integration.conftest import Start, wait_until
from tests.integration.test_webhooks import receiving

PLAIN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MIGRATE = [sys.executable, "-m", "app.cli", "migrate"]


def open_files(root: Path) -> list[str]:
    return [str(p) for p in (root, *root.rglob("*")) if not p.is_symlink() and stat.S_IMODE(p.stat().st_mode) & 0o077]


def told(root: Path, secret: str) -> list[Path]:
    return [p for p in root.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]


def age(data: Path, url: str) -> None:
    """Change a data directory to the state of an earlier version."""
    database = sqlite3.connect(data / "zoo.db")
    with database:
        values = ("whk_1", url, "", "[]", True, PLAIN, "2026-01-01", "default")
        columns = "id, url, description, events, enabled, secret, created_at, workspace"
        database.execute(f"INSERT INTO webhooks ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    database.execute("PRAGMA user_version=0")
    database.close()
    for path in (data, *data.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_start_closes_files_and_seals_secrets_and_messages_are_signed_as_before(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    environment = {**os.environ, "PNC_DATA_DIR": str(data)}
    subprocess.run(MIGRATE, env=environment, check=True, capture_output=True, umask=0o022)
    assert open_files(data) == []
    with receiving(lambda receiver: receiver.reply(204)) as (url, heard):
        age(data, url)
        assert told(data, PLAIN)
        done = subprocess.run(MIGRATE, env=environment, check=True, capture_output=True, text=True, umask=0o022)
        assert done.stderr.count("PNC_FILE_ACCESS") == 1
        service = start(data, PNC_WEBHOOK_PRIVATE="true")
        assert open_files(data) == []
        assert told(data, PLAIN) == []
        with Client(service.url) as client:
            made = client.webhooks.create(url)
            client.models.create("new")
            for hook in ("whk_1", made.id):
                client.webhooks.test(hook)
            wait_until(lambda: len(heard) == 2, 200)  # the worker may still be starting
            for headers, body in heard:
                secret = PLAIN if "whk_1" in body else made.secret
                assert Webhook(secret).verify(body, headers)["type"] == "webhook.test"
        assert told(data, PLAIN) == told(data, made.secret) == []
        assert open_files(data) == []


def test_a_lost_key_stops_the_start_and_names_the_setting_and_the_way_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    environment = {**os.environ, "PNC_DATA_DIR": str(data)}
    first = subprocess.run(MIGRATE, env=environment, check=False, capture_output=True, text=True)
    assert first.returncode == 0
    age(data, "https://hooks.example/pnc")
    subprocess.run(MIGRATE, env=environment, check=True, capture_output=True)
    (data / "secret.key").unlink()
    refused = subprocess.run(MIGRATE, env=environment, check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "PNC_SECRET_KEY_FILE" in refused.stderr
    assert "--forget-secrets" in refused.stderr
    assert "Traceback" not in refused.stderr
    subprocess.run([*MIGRATE, "--forget-secrets"], env=environment, check=True, capture_output=True)
