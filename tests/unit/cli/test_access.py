"""Keys and workspaces from the command line, with the service and at its machine."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from app.access import keys
from app.access.tables import WorkspaceRow
from app.cli import app as pnc
from app.cli import credentials
from app.db.engine import Database
from app.errors import Unauthenticated
from tests.unit.cli.conftest import Run
from tests.unit.client.describing import Described


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where `pnc login` keeps keys."""
    monkeypatch.setattr(credentials, "path", lambda: tmp_path / "keys.json")
    return tmp_path / "keys.json"


def test_the_first_key_is_made_at_the_services_machine(run: Run, tmp_path: Path) -> None:
    home = ["--data-dir", str(tmp_path / "data")]
    assert run("workspaces", "create", "red", "--max-jobs", "2", *home).exit_code == 0
    done = run("keys", "create", "me", "--here", "--workspace", "red", "-s", "admin", "--json", *home)
    made = json.loads(done.stdout)
    assert (made["workspace"], made["scopes"]) == ("red", ["admin"])
    database = Database(f"sqlite:///{tmp_path}/data/zoo.db")
    with database.read() as session:
        assert keys.authenticate(session, made["secret"]).workspace == "red"
        assert session.scalars(select(WorkspaceRow.max_jobs).where(WorkspaceRow.name == "red")).one() == 2
        with pytest.raises(Unauthenticated):
            keys.authenticate(session, made["secret"].replace("pnc_", "pnc-"))
    database.close()
    listed = json.loads(run("workspaces", "list", "--json", *home).stdout)
    assert [row["name"] for row in listed] == ["default", "red"]


def test_a_key_for_a_workspace_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    done = run("keys", "create", "me", "--here", "--workspace", "none", "--data-dir", str(tmp_path / "data"))
    assert done.exit_code == 1
    assert "expected a workspace" in done.stderr


def test_a_login_keeps_the_key_that_works(run: Run, kept: Path) -> None:
    done = CliRunner().invoke(pnc, ["login", "--url", "http://zoo"], input="pnc_mine\n")
    assert done.exit_code == 0, done.output
    assert json.loads(kept.read_text()) == {"http://zoo": "pnc_mine"}
    assert "pnc_mine" not in done.stdout
    assert run("logout", "--url", "http://zoo").exit_code == 0
    assert json.loads(kept.read_text()) == {}


def test_a_pair_of_keys_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "release.pem"
    public = run("keys", "pair", str(file)).stdout.strip()
    assert public.startswith("ed25519:")
    assert file.stat().st_mode & 0o077 == 0
    before = file.read_bytes()
    assert run("keys", "pair", str(file)).exit_code == 1
    assert file.read_bytes() == before


def test_a_bundle_that_nobody_trusted_has_signed_is_not_verified(
    run: Run, described: Described, tmp_path: Path
) -> None:
    assert run("modules", "sign", "mod_1", "--key", "signer.key", "--out", "module.sig").exit_code == 0
    assert "put_signature" in described.called
    Path("bundle.safetensors").write_bytes(b"test")
    asked = ["modules", "verify", "bundle.safetensors", "--signature", "module.sig"]
    assert run(*asked).exit_code == 2
    done = run(*asked, "--trust", "ed25519:" + "0" * 64)
    assert (done.exit_code, "signature by one of" in done.stderr) == (1, True)


def test_a_damaged_file_of_keys_loses_none_of_them(run: Run, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text('{"http://a": "pnc_a",}')
    for words in (("logout", "--url", "http://c"), ("models", "list", "--url", "http://a")):
        done = run(*words)
        assert done.exit_code == 1
        assert "repair the file or move it away" in done.stderr
    assert kept.read_text() == '{"http://a": "pnc_a",}'


@pytest.mark.parametrize("key", [" ", "pnc_\x07", "pnc_ü"])
def test_what_cannot_be_a_key_is_not_kept(kept: Path, key: str) -> None:
    done = CliRunner().invoke(pnc, ["login", "--url", "http://zoo"], input=f"{key}\n\n\n")
    assert done.exit_code == 2
    assert "key: expected a key as" in done.stderr
    assert not kept.exists()


def test_a_variable_with_an_end_of_line_is_a_key_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNC_KEY", "pnc_mine\r\n")
    assert credentials.find("http://zoo") == "pnc_mine"
