"""`pnc login`, `keys`, `workspaces` and `audit`: who may do what, and what was done."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.screen import DEFAULT_URL, AsJson, Exit, Screen, Url, connected, failures, record, size, table, when

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

keys = typer.Typer(name="keys", help="Keys of the API.", no_args_is_help=True)
workspaces = typer.Typer(name="workspaces", help="What is kept apart from each other.", no_args_is_help=True)
Here = Annotated[
    bool, typer.Option("--here", help="In this machine's database, without the service and without a key.")
]
DataDir = Annotated[Path | None, typer.Option(help="Of the service, with --here; default: the user's data home.")]
Name = Annotated[str, typer.Argument(help="Name for people.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", "-s", help="read, write, jobs, deploy or admin; again for more. Default: all but admin."),
]
_USUAL = ["read", "write", "jobs", "deploy"]


def login(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Keep a key for a service; it is asked for, or read from standard input."""
    screen = Screen(as_json)
    with failures(screen):
        import pnc_client as package
        from app.cli import credentials
        from pnc_core.errors import ConfigError

        key = typer.prompt("Key", hide_input=True, err=True).strip()
        if not (key and key.isascii() and key.isprintable()):
            raise ConfigError("key: expected one as `pnc keys create` shows it, got nothing or other characters")
        with package.Client(url, key=key) as client:
            mine = client.keys.workspace()
        file = credentials.keep(url, key)
        answer = {"url": url, "workspace": mine.name, "scopes": mine.scopes, "file": str(file)}
        screen.show(answer, lambda: f"signed in to workspace {mine.name} at {url}; the key lies in {file}")


def logout(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Forget the key for a service; it stays in force, see `pnc keys revoke`."""
    screen = Screen(as_json)
    with failures(screen):
        from app.cli import credentials

        file = credentials.keep(url, None)
        screen.show({"url": url, "file": str(file)}, lambda: f"forgot the key for {url}")


def whoami(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """The workspace that one works in, and what one's key may do there."""
    with connected(url, as_json) as (client, screen):
        mine = client.keys.workspace()
        screen.show(mine, lambda: record(_workspace(mine)))


def audit(
    key: Annotated[str | None, typer.Option(help="Id of a key: only what was done with it.")] = None,
    most: Annotated[int, typer.Option(help="Lines at most.", min=1)] = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What was done in the workspace, newest first."""
    from itertools import islice

    with connected(url, as_json) as (client, screen):
        found = list(islice(client.keys.audit(key=key), most))
        rows = ([when(e.at), e.who, e.action, e.path, e.outcome, e.address] for e in found)
        columns = ["when", "who", "what", "path", "outcome", "from"]
        screen.show(found, lambda: table(columns, rows, "nothing was done with a key yet"))


@keys.command("create")
def create_key(
    name: Name,
    scope: Scopes = None,
    days: Annotated[int | None, typer.Option(help="It ends by itself after so many; default: never.", min=1)] = None,
    here: Here = False,
    workspace: Annotated[str, typer.Option(help="With --here: the key's workspace.")] = "default",
    data_dir: DataDir = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make a key and show its secret, this once."""
    if here:
        screen = Screen(as_json)
        with failures(screen), _database(screen, data_dir, workspace) as session:
            from app.access import keys as zoo_keys
            from app.access import workspaces as zoo_workspaces

            zoo_workspaces.own(session)
            lifetime = timedelta(days=days) if days else None
            row, secret = zoo_keys.create(session, name=name, scopes=scope or _USUAL, lifetime=lifetime)
            made: dict[str, object] = {
                "id": row.id,
                "name": name,
                "workspace": workspace,
                "scopes": row.scopes,
                "secret": secret,
            }
    else:
        with connected(url, as_json) as (client, screen):
            made = client.keys.create(name, scope or _USUAL, days=days).model_dump(mode="json")
    screen.show(made, lambda: record(made))
    screen.note("This is the only time that the secret is shown; use it with `pnc login` or as PNC_KEY.")


@keys.command("list")
def list_keys(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """All keys of the workspace, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.keys.list())
        rows = (
            [k.id, k.name, k.hint + "...", ", ".join(k.scopes), when(k.expires_at), when(k.revoked_at)] for k in found
        )
        columns = ["key", "name", "begins", "scopes", "ends", "revoked"]
        screen.show(found, lambda: table(columns, rows, "no keys yet; make one with `pnc keys create`"))


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(help="Id of a key.")], url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """End a key at once, and what is open with it."""
    with connected(url, as_json) as (client, screen):
        client.keys.revoke(key)
        screen.show({"revoked": key}, lambda: f"revoked {key}")


@keys.command()
def pair(
    out: Annotated[Path, typer.Argument(help="File for the private key; it must not be there yet.")],
    as_json: AsJson = False,
) -> None:
    """Make a pair of keys to sign modules with: the private one stays in this file, the public one is shown."""
    screen = Screen(as_json)
    with failures(screen):
        from app.local.signing import make_pair

        public = make_pair(out)
        screen.show({"path": str(out), "public": public}, lambda: public)
        screen.note(f"the private key lies in {out}; let others trust the public one with `pnc keys trust`")


@keys.command()
def mark(
    out: Annotated[Path, typer.Argument(help="File for the key; it must not be there yet.")],
    as_json: AsJson = False,
) -> None:
    """Make a key to mark modules with (`pnc clone --mark`); shows what may be published before a proof is needed."""
    screen = Screen(as_json)
    with failures(screen):
        from app.local.marking import make_mark

        commitment = make_mark(out).commitment
        screen.show({"path": str(out), "commitment": commitment}, lambda: commitment)
        screen.note(f"the key lies in {out}; publish the line above, dated, before you publish what is marked with it")


@keys.command()
def trust(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    public: Annotated[str, typer.Argument(help="ed25519:...")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Let the workspace believe what a key signs."""
    with connected(url, as_json) as (client, screen):
        made = client.signatures.trust(name, public)
        screen.show(made, lambda: record({"name": made.name, "key": made.key}))


@keys.command()
def trusted(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Public keys that the workspace trusts."""
    with connected(url, as_json) as (client, screen):
        found = list(client.signatures.trusted())
        rows = ([k.name, k.key, when(k.created_at)] for k in found)
        screen.show(found, lambda: table(["name", "key", "since"], rows, "none; see `pnc keys trust`"))


@keys.command()
def distrust(
    name: Annotated[str, typer.Argument(help="Whose key it is.")], url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Let the workspace believe a key no more."""
    with connected(url, as_json) as (client, screen):
        client.signatures.distrust(name)
        screen.show({"distrusted": name}, lambda: f"{name} is trusted no more")


@workspaces.command("create")
def create_workspace(
    name: Name,
    max_bytes: Annotated[int | None, typer.Option(help="Bytes that it may keep.", min=0)] = None,
    max_jobs: Annotated[int | None, typer.Option(help="Jobs that it may have at once.", min=0)] = None,
    requests: Annotated[int | None, typer.Option(help="Requests a minute of each key.", min=1)] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a workspace in this machine's database; give it keys with `pnc keys create --here --workspace`."""
    screen = Screen(as_json)
    limits = {"max_bytes": max_bytes, "max_jobs": max_jobs, "requests_per_minute": requests}
    with failures(screen), _database(screen, data_dir) as session:
        from app.access import workspaces as zoo_workspaces

        zoo_workspaces.create(session, name, **limits)
    screen.show({"name": name, **limits}, lambda: record({"name": name, **limits}))


@workspaces.command("list")
def list_workspaces(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """All workspaces of this machine's database."""
    screen = Screen(as_json)
    with failures(screen), _database(screen, data_dir) as session:
        from app.access import workspaces as zoo_workspaces

        columns = ("name", "max_bytes", "max_jobs", "requests_per_minute", "require_signature")
        found = [{c: getattr(row, c) for c in columns} for row in zoo_workspaces.list_workspaces(session)]
    screen.show(found, lambda: table(columns, [list(row.values()) for row in found], "none; run `pnc migrate`"))


@workspaces.command("signatures")
def require_signatures(
    required: Annotated[bool, typer.Option("--required/--optional", help="What deployments of one's workspace take.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Let deployments take only modules that a trusted key has signed, or all."""
    with connected(url, as_json) as (client, screen):
        mine = client.keys.change_workspace(require_signature=required)
        screen.show(mine, lambda: record(_workspace(mine)))


@workspaces.command("retention")
def keep_archived(
    days: Annotated[str, typer.Argument(help="After so many days what is archived is purged; `off`: never by itself.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Say how long one's workspace keeps what is archived; workers look every hour."""
    if days != "off" and not days.isdigit():
        raise typer.BadParameter(f"expected a number of days, or off, got {days!r}", param_hint="DAYS")
    with connected(url, as_json) as (client, screen):
        mine = client.keys.change_workspace(retention_days="off" if days == "off" else int(days))
        screen.show(mine, lambda: record(_workspace(mine)))


def _workspace(mine: Any) -> dict[str, object]:
    def share(have: object, most: object) -> str:
        return f"{have} of {'any number' if most is None else most}"

    return {
        "workspace": mine.name,
        "key": mine.key or "none asked for",
        "scopes": ", ".join(mine.scopes),
        "bytes": share(size(mine.bytes), None if mine.max_bytes is None else size(mine.max_bytes)),
        "jobs": share(mine.jobs, mine.max_jobs),
        "signatures": "required" if mine.require_signature else "optional",
        "archived": "kept" if mine.retention_days is None else f"purged after {mine.retention_days} days",
    }


@contextmanager
def _database(screen: Screen, data_dir: Path | None, workspace: str | None = None) -> "Iterator[Session]":
    """One writing transaction on this machine's database, migrated."""
    from app.db.engine import Database
    from app.db.isolation import confine
    from app.errors import ZooError
    from app.settings import Settings
    from app.up import UpError, prepare

    try:
        given: dict[str, Any] = {"data_dir": data_dir.resolve()} if data_dir else {}
        settings = Settings(**given)
        prepare(settings)
        database = Database(settings.database_url)
        try:
            with database.write() as session:
                confine(session, workspace)
                yield session
        finally:
            database.close()
    except (UpError, ZooError) as error:
        screen.fail(Exit.FAILED, str(error))


COMMANDS = (login, logout, whoami, audit)
