"""Output and exit codes of commands.

A command prints its result to standard output: text for people, or with `--json` exactly one JSON document,
even when the command fails. Notes, progress and errors go to standard error.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pnc_core.spelling import JOINERS

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType

    from pnc_client import Client

DEFAULT_URL = "http://127.0.0.1:8000"
_ALSO_SHOWN = f"\n{JOINERS}"
_EXTRAS = {
    **dict.fromkeys(("PIL", "cryptography", "numpy", "safetensors", "torch", "torchvision"), "core"),
    **dict.fromkeys(("boto3", "botocore", "celery", "kombu", "packaging", "psycopg", "redis"), "cluster"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
    "huggingface_hub": "hub",
    "matplotlib": "server,plots",
    "mlflow": "mlflow",
    "opentelemetry": "otel",
    "scipy": "origin",
    "sklearn": "demo",
    "timm": "timm",
}
"""The extra that installs each package; `server` installs all packages that are not listed."""
PIPE_WIDTH = 1000
"""Width of a line, in characters, if standard output is not a terminal."""
Url = Annotated[str, typer.Option("--url", envvar="PNC_URL", help="Address of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


class Exit(IntEnum):
    """Exit codes of commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_SUCCEEDED = 3
    """A job failed or was cancelled, a version was rejected, or some files could not be classified."""
    REFUSED = 4
    """The service answered with a problem document."""
    UNREACHABLE = 5
    INTERRUPTED = 130


@dataclass(frozen=True)
class Screen:
    """The output of one command."""

    as_json: bool = False

    @property
    def out(self) -> "Console":
        """Standard output, for results; in a pipe long lines are not wrapped."""
        from rich.console import Console

        width = None if sys.stdout.isatty() else PIPE_WIDTH
        return Console(highlight=False, width=width)

    @property
    def notes(self) -> "Console":
        """Standard error, for notes, progress and errors."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    def show(self, value: object, people: "Callable[[], RenderableType]") -> None:
        """Print the result.

        Args:
            value: The result for `--json`: objects of the client, dataclasses, lists or plain JSON values.
            people: Makes the result for people; called only without `--json`.
        """
        if self.as_json:
            from pydantic_core import to_json

            sys.stdout.write(to_json(value, indent=2).decode() + "\n")
        else:
            shown = people()
            self.out.print(shown, soft_wrap=isinstance(shown, str), markup=False)

    def note(self, text: str) -> None:
        """Print a note to standard error; silent with `--json`."""
        if not self.as_json:
            self.notes.print(plain(text), markup=False, soft_wrap=True)

    def fail(self, code: Exit, message: str, problem: dict[str, Any] | None = None) -> NoReturn:
        """Print an error and end the command.

        Args:
            code: The exit code.
            message: What was expected, what was got, and what to do.
            problem: Further fields for `--json`, e.g. of a problem document.
        """
        if self.as_json:
            from pydantic_core import to_json

            document = {"error": {"exit": int(code), "detail": message, **(problem or {})}}
            sys.stdout.write(to_json(document, indent=2).decode() + "\n")
        self.notes.print("[red]error:[/red] ", end="")
        self.notes.print(plain(message), markup=False, soft_wrap=True)
        raise typer.Exit(int(code))

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar for uploads and downloads; the yielded function takes the bytes so far and the total."""
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self.notes, disable=self.as_json) as progress:
            task = progress.add_task(plain(title), total=None)
            yield lambda done, size: progress.update(task, completed=done, total=size)

    @contextmanager
    def counting(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar for items; the yielded function takes the number so far and the total."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.notes, disable=self.as_json) as progress:
            task = progress.add_task(plain(title), total=None)
            yield lambda done, count: progress.update(task, completed=done, total=count)


def check_out(out: "Path", *inputs: "Path") -> None:
    """Check before any work that the output file can be written and is not an input file.

    Raises:
        ConfigError: the directory of `out` does not exist, or `out` is one of the input files.
    """
    from pnc_core.errors import ConfigError

    if not out.parent.is_dir():
        raise ConfigError(f"--out: expected a file in an existing directory, got {out}; create {out.parent} first")
    if out.exists() and any(path.exists() and out.samefile(path) for path in inputs):
        raise ConfigError(f"--out: expected a file that is not an input, got {out}; choose another name")


@contextmanager
def failures(screen: Screen) -> Iterator[None]:
    """Turn errors of the block into the command's exit code and message."""
    from pnc_client import ApiError, ClientError, ServiceUnreachable, VersionRejected
    from pnc_core.errors import ConfigError, PncError

    try:
        yield
    except ApiError as error:
        faults = [fault.model_dump() for fault in error.errors]
        problem = {"code": error.code, "status": error.status, "request_id": error.request_id, "errors": faults}
        lines = [f"{fault['pointer']}: {fault['detail']}" for fault in faults]
        text = "\n".join(lines) if len(lines) > 1 else error.detail
        screen.fail(Exit.REFUSED, f"{text} ({error.code}, request {error.request_id or 'without id'})", problem)
    except ServiceUnreachable as error:
        screen.fail(Exit.UNREACHABLE, str(error))
    except VersionRejected as error:
        screen.fail(Exit.NOT_SUCCEEDED, str(error))
    except ConfigError as error:
        screen.fail(Exit.USAGE, str(error), {"code": error.code})
    except ModuleNotFoundError as error:
        screen.fail(Exit.FAILED, what_to_install(error), {"code": type(error).__name__})
    except (ClientError, PncError, OSError, ValueError) as error:
        screen.fail(Exit.FAILED, str(error), {"code": getattr(error, "code", type(error).__name__)})
    except KeyboardInterrupt:
        screen.fail(Exit.INTERRUPTED, "interrupted")


@contextmanager
def connected(url: str, as_json: bool) -> "Iterator[tuple[Client, Screen]]":
    """A client of the service and a screen; errors of the block end the command, see `failures`."""
    from app.cli import credentials
    from pnc_client import Client

    screen = Screen(as_json)
    with failures(screen), Client(url, key=credentials.find(url)) as client:
        yield client, screen


def what_to_install(error: ModuleNotFoundError) -> str:
    """The message for a missing package: the base install lacks packages that only some commands need."""
    extra = _EXTRAS.get((error.name or "").partition(".")[0], "server")
    return f"{error}; install the packages of this command with: pip install 'pnc-zoo[{extra}]'"


def plain(text: object) -> str:
    """Text in which control characters of terminals are replaced."""
    return "".join(c if c.isprintable() or c in _ALSO_SHOWN else "�" for c in str(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> "RenderableType":
    """A table of plain text, or `empty` if there are no rows.

    Args:
        columns: Titles; a title that begins with `#` makes a right-aligned column of numbers.
        rows: One value for each column.
        empty: Text that says what to do next.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    lines = [[Text(plain(cell)) for cell in row] for row in rows]
    if not lines:
        return Text(empty)
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        justify: Any = "right" if column.startswith("#") else "left"
        made.add_column(column.removeprefix("#"), justify=justify, overflow="fold")
    for line in lines:
        made.add_row(*line)
    return made


def record(fields: "dict[str, object]") -> "RenderableType":
    """Names and values, one pair per line."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in fields.items():
        made.add_row(Text(name), Text(plain("—" if value in (None, "") else value)))
    return made


def size(count: int) -> str:
    """A number of bytes for people, e.g. `1.2 MB`."""
    from rich.filesize import decimal

    return decimal(count)


def local_time(moment: object) -> str:
    """A time in the user's time zone; a dash if there is none."""
    from datetime import datetime

    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if isinstance(moment, datetime) else "—"
