"""Commands that run and maintain the service, and two that demonstrate it: `pnc demo` and `pnc gallery`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.screen import DEFAULT_URL, AsJson, Exit, Screen, Url, connected, record, size, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.doctor import Finding
    from app.settings import Settings

ApiHost = Annotated[str | None, typer.Option(help="Address to listen on; default: PNC_HOST, or else loopback.")]
ApiPort = Annotated[
    int | None, typer.Option(help="Port of the API; 0: any free port; default: PNC_PORT, or else 8000.", min=0)
]
DataDir = Annotated[
    Path | None, typer.Option(help="Data directory of the service; default: the user's data directory.")
]


def up(data_dir: DataDir = None, host: ApiHost = None, port: ApiPort = None) -> None:
    """Run the embedded service (API, serving and one worker) until Ctrl-C; a second Ctrl-C stops it at once."""
    from app.up import UpError, up

    settings = _settings(host=host, port=port, data_dir=data_dir)
    try:
        in_order = up(
            settings,
            lambda url: Screen().out.print(
                f"ready: {url}  (data: {settings.data_dir}; Ctrl-C stops it)", soft_wrap=True
            ),
        )
    except (UpError, OSError) as error:
        Screen().fail(Exit.FAILED, str(error))
    with suppress(OSError):  # the terminal may be closed
        Screen().out.print("stopped" if in_order else "stopped at once")
    if not in_order:
        raise typer.Exit(Exit.INTERRUPTED)


def api(host: ApiHost = None, port: ApiPort = None, data_dir: DataDir = None) -> None:
    """Run only the API and the web pages, until Ctrl-C; PNC_SERVING_URL is the address of the serving process."""
    from app.access.secrets_at_rest import seal_where_ready
    from app.main import create_app
    from app.process.server import run_alone

    settings = _settings(host=host, port=port, data_dir=data_dir)
    try:
        service = create_app(settings)
        seal_where_ready(service.state.zoo)
        run_alone("api", service, settings, settings.host, settings.port)
    except (OSError, ValueError) as error:
        Screen().fail(Exit.FAILED, str(error))


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8001,
    data_dir: DataDir = None,
) -> None:
    """Run only the serving process, e.g. on a host with an accelerator, until Ctrl-C.

    The process serves the deployments in the database of PNC_DATABASE_URL. Set PNC_SERVING_URL of the API to the
    address of this process, and add the host of that address to PNC_ALLOWED_HOSTS here.
    """
    settings = _settings(host=host, data_dir=data_dir)
    from app.process.server import run_alone
    from app.serving.main import create_serving_app

    try:
        run_alone("serving", create_serving_app(settings), settings, host, port)
    except (OSError, ValueError) as error:
        Screen().fail(Exit.FAILED, str(error))


def worker(
    slots: Annotated[
        int | None, typer.Option(help="Number of jobs to run at the same time; default: 1.", min=1, max=64)
    ] = None,
    sizes: Annotated[str | None, typer.Option(help="Sizes of jobs to run: small, large, or small,large.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Run a Celery worker until Ctrl-C; its running jobs then return to the queue with their checkpoints.

    The worker needs PNC_BROKER_URL, and the settings of the service's database and store.
    """
    import os

    given = {"PNC_SLOTS": slots, "PNC_WORKER_SIZES": sizes, "PNC_DATA_DIR": data_dir and data_dir.resolve()}
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    with _failing_on_invalid_settings():
        from workers.main import run
    run()


def migrate(
    forget_secrets: Annotated[
        bool,
        typer.Option(
            "--forget-secrets", help="Replace webhook secrets that no key decrypts, and disable their webhooks."
        ),
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DIR|URL",
            help="Then copy everything from this data directory, or from the database with this URL, into the empty "
            "database and store of the settings.",
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Migrate the database of PNC_DATABASE_URL to the newest schema; repeating the command changes nothing."""
    from app.up import UpError, prepare

    screen, settings = Screen(), _settings(data_dir=data_dir)
    try:
        prepare(settings, forget_secrets=forget_secrets)
    except UpError as error:
        screen.fail(Exit.FAILED, str(error))
    screen.out.print("the schema is up to date")
    if origin is not None:
        _move(screen, origin, settings)


def _move(screen: Screen, given: str, settings: "Settings") -> None:
    from app import moving
    from app.errors import ZooError

    try:
        with screen.counting("copying") as count:
            moved = moving.move(moving.origin(given, settings), settings, lambda title, done, total: count(done, total))
    except (ZooError, OSError) as error:
        screen.fail(Exit.FAILED, str(error))
    for key in moved.lost:
        screen.note(f"the old store has lost the object {key}")
    if moved.uploads:
        screen.note(f"{moved.uploads} unfinished uploads were left out; send these files again")
    there = f", {moved.there} were there already" if moved.there else ""
    screen.out.print(
        f"copied {sum(moved.rows.values())} rows and {moved.objects} objects ({size(moved.bytes)}){there}",
        highlight=False,
    )


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the files to delete.")] = False,
    hours: Annotated[
        float, typer.Option(help="Minimum age, in hours, of an unreferenced object to delete.", min=0)
    ] = 1.0,
    data_dir: DataDir = None,
) -> None:
    """Delete unreferenced objects, uploads and files; workers do this every hour."""
    from app.cleaning import clean
    from app.errors import ZooError

    try:
        clean(_settings(data_dir=data_dir), hours * 3600, dry_run=dry_run, console=Screen().out)
    except (ZooError, OSError) as error:
        Screen().fail(Exit.FAILED, str(error))


def demo(
    seed: Annotated[int, typer.Option(help="Random seed of the networks and of the split.", min=0)] = 0,
    record: Annotated[Path | None, typer.Option(help="Also save the output as an SVG picture.")] = None,
) -> None:
    """Clone three digits from one network into another over HTTP, and detach them again."""
    from rich.console import Console

    from app.demo import run

    shown = Console(record=True, width=88) if record else Console()
    try:
        run(seed, shown)
    finally:
        if record:
            shown.save_svg(str(record), title="make demo")


def gallery(
    seed: Annotated[int, typer.Option(help="Random seed of the networks and of the split.", min=0)] = 0,
    anyway: Annotated[bool, typer.Option("--anyway", help="Fill the zoo even if it has models.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Fill an empty zoo with small trained networks, images, a module and a deployment."""
    with connected(url, as_json) as (client, screen):
        from app.gallery import NotEmpty, fill

        try:
            made = fill(client, screen.notes, seed=seed, anyway=anyway, quiet=as_json)
        except NotEmpty as error:
            screen.fail(Exit.FAILED, str(error))
        screen.show(made, lambda: record({name.replace("_", " "): _listed(value) for name, value in made.items()}))


@contextmanager
def _failing_on_invalid_settings() -> Iterator[None]:
    """End the command with the names of invalid settings, if there are any."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    try:
        yield
    except (ValidationError, SettingsError) as error:
        Screen().fail(Exit.FAILED, f"settings (PNC_* variables and options): {error}")


def _settings(*, data_dir: Path | None, **given: Any) -> "Settings":
    """The settings of the environment, overridden by the command line's options."""
    from app.settings import Settings

    given["data_dir"] = data_dir and data_dir.resolve()
    with _failing_on_invalid_settings():
        return Settings(**{name: value for name, value in given.items() if value is not None})


def _listed(value: object) -> object:
    return ", ".join(value) if isinstance(value, list) else value


def status(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show whether the service answers and whether its database and store are usable."""
    with connected(url, as_json) as (client, screen):
        found = {"url": client.url, "alive": client.alive(), "ready": client.ready()}
        screen.show(found, lambda: record({name: _yes(value) for name, value in found.items()}))


def doctor(
    url: Url = DEFAULT_URL,
    data_dir: DataDir = None,
    report: Annotated[
        bool, typer.Option("--report", help="Print the findings as Markdown, to paste into a bug report.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check installation, devices, threads, settings, database and store; changes nothing."""
    from app import doctor

    screen = Screen(as_json)
    findings = list(doctor.examine(url, data_dir))
    if report and not as_json:
        screen.out.print(doctor.markdown(findings), markup=False, soft_wrap=True)
    else:
        screen.show(doctor.facts(findings), lambda: _findings(findings))
        screen.note("`pnc doctor --report` prints this as Markdown for a bug report, without secrets")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(Exit.FAILED)


def _findings(findings: "Sequence[Finding]") -> "RenderableType":
    rows = [
        (_SIGNS[found.state], found.part, found.name, "\n".join(filter(None, (found.detail, _arrow(found.advice)))))
        for found in findings
    ]
    return table(("", "part", "check", "found"), rows, "")


_SIGNS = {"ok": "✓", "note": "•", "problem": "✗"}


def _arrow(advice: str) -> str:
    return f"→ {advice}" if advice else ""


def _yes(value: object) -> object:
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


TRYING = (demo, gallery)
COMMANDS = (up, api, serve, worker, migrate, gc, status, doctor)
