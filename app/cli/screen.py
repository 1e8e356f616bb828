"""What commands say, and how they end.

Answers go to standard output: text for people, or with `--json` one JSON document and
nothing else, also when the command fails. Notes, progress and errors go to standard error.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType

    from pnc_client import Client

DEFAULT_URL = "http://127.0.0.1:8000"
_EXTRAS = {
    **dict.fromkeys(("cryptography", "numpy", "safetensors", "torch", "torchvision"), "core"),
    **dict.fromkeys(("boto3", "botocore", "celery", "psycopg", "redis"), "cluster"),
    **dict.fromkeys(("onnx", "onnxscript"), "onnx"),
    "matplotlib": "server,plots",
    "sklearn": "demo",
}
"""Which extra brings a package; `server` brings the others."""
UNBROKEN = 1000
"""Characters of a line where nobody looks at it on a terminal."""
Url = Annotated[str, typer.Option("--url", envvar="PNC_URL", help="Where the service listens.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


class Exit(IntEnum):
    """Codes that commands end with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_SUCCEEDED = 3
    """A job ended failed or cancelled, or a version was rejected."""
    REFUSED = 4
    """The service answered with a problem."""
    UNREACHABLE = 5
    INTERRUPTED = 130


@dataclass(frozen=True)
class Screen:
    """Where a command puts what it has to say."""

    as_json: bool = False

    @property
    def out(self) -> "Console":
        """For answers; in a pipe lines are as long as they are."""
        from rich.console import Console

        wide = None if sys.stdout.isatty() else UNBROKEN
        return Console(highlight=False, width=wide)

    @property
    def notes(self) -> "Console":
        """For everything beside the answer."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    def show(self, value: object, people: "Callable[[], RenderableType]") -> None:
        """Give the answer.

        Args:
            value: What programs get: objects of the client, dataclasses, lists or plain JSON values.
            people: Makes what people see.
        """
        if self.as_json:
            from pydantic_core import to_json

            sys.stdout.write(to_json(value, indent=2).decode() + "\n")
        else:
            shown = people()
            self.out.print(shown, soft_wrap=isinstance(shown, str), markup=False)

    def note(self, text: str) -> None:
        """Say something that is no part of the answer; silent with `--json`."""
        if not self.as_json:
            self.notes.print(plain(text), markup=False, soft_wrap=True)

    def fail(self, code: Exit, message: str, problem: dict[str, Any] | None = None) -> NoReturn:
        """End the command.

        Args:
            code: What to end with.
            message: Expected, got and what to do.
            problem: What programs get besides, e.g. a problem document's fields.
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
        """A bar of bytes on standard error, for uploads and downloads; told the bytes so far and all bytes."""
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self.notes, disable=self.as_json) as progress:
            task = progress.add_task(plain(title), total=None)
            yield lambda done, size: progress.update(task, completed=done, total=size)


def check_out(out: "Path", *read: "Path") -> None:
    """See, before any work, that a file can be written, and is none of those that are read.

    Raises:
        ConfigError: it cannot, or is.
    """
    from pnc_core.errors import ConfigError

    if not out.parent.is_dir():
        raise ConfigError(f"--out: expected a file in a directory that is there, got {out}; make {out.parent} first")
    if out.exists() and any(out.samefile(path) for path in read):
        raise ConfigError(f"--out: expected another file than those that are read, got {out}; choose another name")


@contextmanager
def failures(screen: Screen) -> Iterator[None]:
    """Let the errors of the block end the command with their code and message."""
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
    """A client of the service and a screen; errors of the block end the command."""
    from app.cli import credentials
    from pnc_client import Client

    screen = Screen(as_json)
    with failures(screen), Client(url, key=credentials.find(url)) as client:
        yield client, screen


def what_to_install(error: ModuleNotFoundError) -> str:
    """What to say where a package is missing: the command line comes without what only some commands need."""
    extra = _EXTRAS.get((error.name or "").partition(".")[0], "server")
    return f"{error}; install what this command needs with: pip install 'pnc-zoo[{extra}]'"


def plain(text: object) -> str:
    """Text without characters that a terminal would act upon."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> "RenderableType":
    """A table of plain text; a column whose name begins with `#` is one of numbers.

    Args:
        columns: Their titles.
        rows: As many values each.
        empty: What to say, and to do, when there is no row.
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
    """Names and values, one a line."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in fields.items():
        made.add_row(Text(name), Text(plain("—" if value in (None, "") else value)))
    return made


def size(count: int) -> str:
    """Bytes for people."""
    from rich.filesize import decimal

    return decimal(count)


def when(moment: object) -> str:
    """A moment in the reader's own time."""
    from datetime import datetime

    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if isinstance(moment, datetime) else "—"
