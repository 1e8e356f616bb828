"""`pnc login`, `keys`, `workspaces` and `audit`: access rights and the audit log."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.screen import DEFAULT_URL, AsJson, Exit, Screen, Url, connected, failures, local_time, record, size, table

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

keys = typer.Typer(name="keys", help="Keys of the API.", no_args_is_help=True)
workspaces = typer.Typer(
    name="workspaces", help="Workspaces: each has its own resources and keys.", no_args_is_help=True
)
Here = Annotated[bool, typer.Option("--here", help="Write to this machine's database, without the service or a key.")]
DataDir = Annotated[
    Path | None, typer.Option(help="The service's data directory, with --here; default: the user's data directory.")
]
Name = Annotated[str, typer.Argument(help="Name for people.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", "-s", help="read, write, jobs, deploy or admin; repeatable. Default: all except admin."),
]
_DEFAULT_SCOPES = ["read", "write", "jobs", "deploy"]


def login(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Store a key for a service; the command prompts for the key, or reads it from standard input."""
    screen = Screen(as_json)
    with failures(screen):
        import pnc_client as package
        from app.cli import credentials
        from pnc_core.errors import ConfigError

        key = typer.prompt("Key", hide_input=True, err=True).strip()
        if not (key and key.isascii() and key.isprintable()):
            raise ConfigError(
                "key: expected a key as `pnc keys create` shows it, got no text or characters that keys cannot have"
            )
        with package.Client(url, key=key) as client:
            mine = client.keys.workspace()
        file = credentials.keep(url, key)
        answer = {"url": url, "workspace": mine.name, "scopes": mine.scopes, "file": str(file)}
        screen.show(answer, lambda: f"signed in to workspace {mine.name} at {url}; the key is stored in {file}")


def logout(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete the stored key for a service; the key stays valid until `pnc keys revoke`."""
    screen = Screen(as_json)
    with failures(screen):
        from app.cli import credentials

        file = credentials.keep(url, None)
        screen.show({"url": url, "file": str(file)}, lambda: f"deleted the stored key for {url}")


def whoami(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show the workspace of your key and the scopes of the key."""
    with connected(url, as_json) as (client, screen):
        mine = client.keys.workspace()
        screen.show(mine, lambda: record(_workspace(mine)))


def audit(
    key: Annotated[str | None, typer.Option(help="Id of a key: show only its requests.")] = None,
    most: Annotated[int, typer.Option(help="Maximum number of lines.", min=1)] = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List the workspace's audit log, newest first."""
    from itertools import islice

    with connected(url, as_json) as (client, screen):
        found = list(islice(client.keys.audit(key=key), most))
        rows = ([local_time(e.at), e.who, e.action, e.path, e.outcome, e.address] for e in found)
        columns = ["time", "key", "action", "path", "outcome", "address"]
        screen.show(found, lambda: table(columns, rows, "no request with a key yet"))


@keys.command("create")
def create_key(
    name: Name,
    scope: Scopes = None,
    days: Annotated[
        int | None, typer.Option(help="Days until the key expires; default: it does not expire.", min=1)
    ] = None,
    here: Here = False,
    workspace: Annotated[str, typer.Option(help="With --here: workspace of the key.")] = "default",
    data_dir: DataDir = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Create a key and show its secret once."""
    if here:
        screen = Screen(as_json)
        with failures(screen), _database(screen, data_dir, workspace) as session:
            from app.access import keys as zoo_keys
            from app.access import workspaces as zoo_workspaces

            zoo_workspaces.own(session)
            lifetime = timedelta(days=days) if days else None
            row, secret = zoo_keys.create(session, name=name, scopes=scope or _DEFAULT_SCOPES, lifetime=lifetime)
            made: dict[str, object] = {
                "id": row.id,
                "name": name,
                "workspace": workspace,
                "scopes": row.scopes,
                "secret": secret,
            }
    else:
        with connected(url, as_json) as (client, screen):
            made = client.keys.create(name, scope or _DEFAULT_SCOPES, days=days).model_dump(mode="json")
    screen.show(made, lambda: record(made))
    screen.note("The secret is shown only now; use it with `pnc login` or as PNC_KEY.")


@keys.command("list")
def list_keys(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the workspace's keys, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.keys.list())
        rows = (
            [k.id, k.name, k.hint + "...", ", ".join(k.scopes), local_time(k.expires_at), local_time(k.revoked_at)]
            for k in found
        )
        columns = ["key", "name", "begins with", "scopes", "expires", "revoked"]
        screen.show(found, lambda: table(columns, rows, "no keys yet; create a key with `pnc keys create`"))


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(help="Id of a key.")], url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Revoke a key at once; its open streams and browser sessions end."""
    with connected(url, as_json) as (client, screen):
        client.keys.revoke(key)
        screen.show({"revoked": key}, lambda: f"revoked {key}")


@keys.command()
def pair(
    out: Annotated[Path, typer.Argument(help="File for the private key; the file must not exist.")],
    as_json: AsJson = False,
) -> None:
    """Create a key pair for signing modules: write the private key to a file and show the public key."""
    screen = Screen(as_json)
    with failures(screen):
        from app.local.signing import make_pair

        public = make_pair(out)
        screen.show({"path": str(out), "public": public}, lambda: public)
        screen.note(f"the private key is in {out}; others trust the public key with `pnc keys trust`")


@keys.command()
def mark(
    out: Annotated[Path, typer.Argument(help="File for the key; the file must not exist.")],
    as_json: AsJson = False,
) -> None:
    """Create a key for marking modules (`pnc clone --mark`); shows a commitment to the key that you can publish."""
    screen = Screen(as_json)
    with failures(screen):
        from app.local.marking import make_mark

        commitment = make_mark(out).commitment
        screen.show({"path": str(out), "commitment": commitment}, lambda: commitment)
        screen.note(f"the key is in {out}; publish the line above with a date before you publish a marked module")


@keys.command()
def trust(
    name: Annotated[str, typer.Argument(help="Name of the key's owner.")],
    public: Annotated[str, typer.Argument(help="ed25519:...")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Let the workspace trust the signatures of a public key."""
    with connected(url, as_json) as (client, screen):
        made = client.signatures.trust(name, public)
        screen.show(made, lambda: record({"name": made.name, "key": made.key}))


@keys.command()
def trusted(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the public keys that the workspace trusts."""
    with connected(url, as_json) as (client, screen):
        found = list(client.signatures.trusted())
        rows = ([k.name, k.key, local_time(k.created_at)] for k in found)
        screen.show(
            found,
            lambda: table(["name", "key", "since"], rows, "no trusted keys yet; trust a key with `pnc keys trust`"),
        )


@keys.command()
def distrust(
    name: Annotated[str, typer.Argument(help="Name of the key's owner.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Stop trusting a public key."""
    with connected(url, as_json) as (client, screen):
        client.signatures.distrust(name)
        screen.show({"distrusted": name}, lambda: f"{name} is no longer trusted")


@workspaces.command("create")
def create_workspace(
    name: Name,
    max_bytes: Annotated[int | None, typer.Option(help="Maximum number of stored bytes.", min=0)] = None,
    max_jobs: Annotated[int | None, typer.Option(help="Maximum number of unfinished jobs.", min=0)] = None,
    requests: Annotated[int | None, typer.Option(help="Maximum requests per minute of each key.", min=1)] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a workspace in this machine's database; create its keys with `pnc keys create --here --workspace`."""
    screen = Screen(as_json)
    limits = {"max_bytes": max_bytes, "max_jobs": max_jobs, "requests_per_minute": requests}
    with failures(screen), _database(screen, data_dir) as session:
        from app.access import workspaces as zoo_workspaces

        zoo_workspaces.create(session, name, **limits)
    screen.show({"name": name, **limits}, lambda: record({"name": name, **limits}))


@workspaces.command("list")
def list_workspaces(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the workspaces in this machine's database."""
    screen = Screen(as_json)
    with failures(screen), _database(screen, data_dir) as session:
        from app.access import workspaces as zoo_workspaces

        columns = ("name", "max_bytes", "max_jobs", "requests_per_minute", "require_signature")
        found = [{c: getattr(row, c) for c in columns} for row in zoo_workspaces.list_workspaces(session)]
    screen.show(
        found, lambda: table(columns, [list(row.values()) for row in found], "no workspaces yet; run `pnc migrate`")
    )


@workspaces.command("signatures")
def require_signatures(
    required: Annotated[bool, typer.Option("--required/--optional", help="Whether deployments need signed modules.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Let the workspace's deployments take only modules that a trusted key has signed, or all modules."""
    with connected(url, as_json) as (client, screen):
        mine = client.keys.change_workspace(require_signature=required)
        screen.show(mine, lambda: record(_workspace(mine)))


@workspaces.command("retention")
def keep_archived(
    days: Annotated[str, typer.Argument(help="Days until archived resources are purged; `off`: never automatically.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Set how long your workspace keeps archived resources; workers purge once an hour."""
    if days != "off" and not days.isdigit():
        raise typer.BadParameter(f"expected a number of days, or off, got {days!r}", param_hint="DAYS")
    with connected(url, as_json) as (client, screen):
        mine = client.keys.change_workspace(retention_days="off" if days == "off" else int(days))
        screen.show(mine, lambda: record(_workspace(mine)))


def _workspace(mine: Any) -> dict[str, object]:
    def used(amount: object, limit: object) -> str:
        return f"{amount} of {'any number' if limit is None else limit}"

    return {
        "workspace": mine.name,
        "key": mine.key or "the service needs none",
        "scopes": ", ".join(mine.scopes),
        "bytes": used(size(mine.bytes), None if mine.max_bytes is None else size(mine.max_bytes)),
        "jobs": used(mine.jobs, mine.max_jobs),
        "signatures": "required" if mine.require_signature else "optional",
        "archived": "kept" if mine.retention_days is None else f"purged after {mine.retention_days} days",
    }


@contextmanager
def _database(screen: Screen, data_dir: Path | None, workspace: str | None = None) -> "Iterator[Session]":
    """One write transaction on this machine's database, after its migration."""
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
