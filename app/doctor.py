"""`pnc doctor`: check the installation, the machine, the settings and the parts that the service needs.

The command changes nothing: it creates no directory, no key and no table. A check whose package is not installed says
so, because a client needs neither torch nor a server.
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx
from rich.filesize import decimal

from app.process.resources import processors
from app.process.software import versions

if TYPE_CHECKING:
    from app.settings import Settings

State = Literal["ok", "note", "problem"]
PACKAGES = (
    "pnc-zoo", "torch", "torchvision", "timm", "numpy", "pillow", "pyarrow", "onnx", "onnxruntime", "fastapi",
    "uvicorn", "pydantic", "nicegui", "sqlalchemy", "alembic", "psycopg", "celery", "redis", "boto3", "httpx",
)  # fmt: skip
_OTHER_VARIABLES = {"PNC_KEY", "PNC_API_KEY", "PNC_URL", "PNC_PARENT_PID", processors.SHARED}
"""Variables of the command line and of the service's own processes."""
LOW_DISK, LOW_MEMORY = 2 * 1024**3, 2 * 1024**3
"""Free bytes below which the report notes a shortage."""
SECONDS = 3.0
"""Longest time that a check waits for a service, a broker or a database."""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    part: str
    """Group of the check: `software`, `machine`, `settings` or `service`."""
    name: str
    state: State
    """`note`: works, but the user may want to know. `problem`: the service would fail."""
    detail: str
    """Observed value or state."""
    advice: str = ""
    """Remedy of a problem."""


def examine(url: str, data_dir: Path | None = None) -> Iterator[Finding]:
    """Run all checks, in the order of the report.

    Args:
        url: Address of a service. A service that does not run is a note.
        data_dir: Data directory; None: the one of the settings.
    """
    yield from _software()
    yield from _machine()
    settings = yield from _settings(data_dir)
    if settings is not None:
        for check in (_data_directory, _database, _store, _broker):
            yield _guarded(check, settings)
    yield _service(url)


def markdown(findings: Sequence[Finding]) -> str:
    """The findings as a Markdown table for a bug report. It holds no secrets, and `~` instead of the home directory."""
    home = str(Path.home())
    lines = ["| part | check | state | found |", "| --- | --- | --- | --- |"]
    for finding in findings:
        text = "; ".join(filter(None, (finding.detail, finding.advice)))
        text = text.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {finding.part} | {finding.name} | {finding.state} | {text} |")
    report = "\n".join(lines)
    return report.replace(home, "~") if len(home) > 1 else report


def facts(findings: Sequence[Finding]) -> dict[str, object]:
    """The findings for `--json`."""
    return {
        "healthy": not any(finding.state == "problem" for finding in findings),
        "checks": [asdict(finding) for finding in findings],
    }


def _software() -> Iterator[Finding]:
    found = versions(PACKAGES)
    own = found.pop("pnc-zoo", None)
    yield Finding(
        "software",
        "pnc-zoo",
        "ok" if own else "note",
        own or "not installed as a package",
        "" if own else "run it from an installed package: pip install pnc-zoo",
    )
    yield Finding("software", "Python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("software", "packages", "ok", ", ".join(f"{name} {number}" for name, number in found.items()))


def _machine() -> Iterator[Finding]:
    usable, whole = processors.usable(), os.cpu_count() or 1
    limited = "" if usable >= whole else f" of {whole} (affinity or quota of the control group)"
    chosen = processors.chosen()
    threads = f"; {processors.THREADS}={chosen} is set" if chosen else ""
    yield Finding("machine", "processors", "ok", f"{usable:g} usable{limited}{threads}")
    yield _torch()
    yield from _memory()
    yield _free("temporary files", Path(tempfile.gettempdir()))


def _torch() -> Finding:
    try:
        import torch

        from pnc_core.devices import has_bfloat16
    except ModuleNotFoundError:
        return Finding(
            "machine", "torch", "note", "not installed", "only a client works; else: pip install 'pnc-zoo[core]'"
        )
    bfloat16 = "bfloat16 instructions" if has_bfloat16("cpu") else "no bfloat16 instructions"
    cpu = f"CPU {torch.backends.cpu.get_cpu_capability()} ({bfloat16})"
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Finding("machine", "torch", "ok", f"{cpu}; CUDA {torch.version.cuda}: {names}")
    if torch.version.cuda and Path("/dev/nvidiactl").exists():
        return Finding(
            "machine",
            "torch",
            "problem",
            f"{cpu}; torch is built for CUDA {torch.version.cuda} and cannot use the GPU of this machine",
            "compare the driver's version (nvidia-smi) with the CUDA version of torch",
        )
    return Finding("machine", "torch", "ok", f"{cpu}; no GPU that torch can use")


def _memory() -> Iterator[Finding]:
    try:
        import psutil
    except ModuleNotFoundError:  # a client
        return
    memory = psutil.virtual_memory()
    low = memory.available < LOW_MEMORY
    yield Finding(
        "machine",
        "memory",
        "note" if low else "ok",
        f"{decimal(memory.available)} of {decimal(memory.total)} available",
        "a job needs about 1 GB; end other programs" if low else "",
    )


def _free(name: str, folder: Path) -> Finding:
    """Free bytes of the disk of a directory, or of the nearest directory above it that exists."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    low = free < LOW_DISK
    return Finding(
        "machine",
        name,
        "note" if low else "ok",
        f"{decimal(free)} free at {folder}",
        "free some space, or choose another directory" if low else "",
    )


def _settings(data_dir: Path | None) -> "Generator[Finding, None, Settings | None]":
    """Yield the settings that differ from their defaults, without secrets.

    Returns:
        The settings; None if they are invalid or the server is not installed.
    """
    try:
        from pydantic import ValidationError
        from pydantic_settings import SettingsError

        from app.settings import Settings
    except ModuleNotFoundError:
        advice = "only a client works; else: pip install 'pnc-zoo[server]'"
        yield Finding("settings", "server", "note", "not installed", advice)
        return None
    try:
        settings = Settings() if data_dir is None else Settings(data_dir=data_dir.resolve())
    except (ValidationError, SettingsError) as error:
        advice = "correct the PNC_* variables"
        yield Finding("settings", "settings", "problem", " ".join(str(error).split()), advice)
        return None
    known = {f"PNC_{name.upper()}" for name in Settings.model_fields} | _OTHER_VARIABLES
    files = {f"{name}_FILE" for name in known}
    unknown = sorted(n for n in os.environ if n.startswith("PNC_") and n not in known | files)
    if unknown:
        advice = "remove them, or correct their names; docs/operations.md lists all settings"
        yield Finding("settings", "unknown variables", "note", ", ".join(unknown), advice)
    changed = {name: _shown(settings, name) for name in sorted(settings.model_fields_set)}
    text = ", ".join(f"{name}={value}" for name, value in changed.items())
    yield Finding("settings", "settings", "ok", text or "all have their defaults")
    return settings


def _shown(settings: "Settings", name: str) -> str:
    """A setting without secrets."""
    value = getattr(settings, name)
    if not type(settings).model_fields[name].repr:
        return "(set)"
    return _without_password(value) if isinstance(value, str) and "://" in value else str(value)


def _without_password(url: str) -> str:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "(not a URL)"


def _guarded(check: "Callable[[Settings], Finding]", settings: "Settings") -> Finding:
    """Run a check. An error of the environment becomes a problem."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.errors import ZooError

    name = check.__name__.strip("_").replace("_", " ")
    try:
        return check(settings)
    except ModuleNotFoundError as error:
        return Finding("service", name, "problem", str(error), "pip install 'pnc-zoo[server,cluster]'")
    except (ZooError, ValueError, OSError, SQLAlchemyError) as error:
        return Finding("service", name, "problem", " ".join(str(error).split()))


def _data_directory(settings: "Settings") -> Finding:
    from app.process.troubles import try_to_write

    folder = settings.data_dir
    free = _free("data directory", folder)
    if not folder.exists():
        return Finding("service", "data directory", "note", f"{folder} does not exist yet", "`pnc up` makes it")
    try_to_write(folder)
    mode = folder.stat().st_mode & 0o777
    return Finding("service", "data directory", free.state, f"{free.detail}, writable, mode {mode:04o}", free.advice)


def _database(settings: "Settings") -> Finding:
    from sqlalchemy import text

    from app.db.engine import Database, outdated, parse_url

    url = parse_url(settings.database_url)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return Finding("service", "database", "note", f"{shown} does not exist yet", "`pnc up` makes it")
    # connect_timeout of the engine is longer than a person wants to wait.
    query = {} if url.get_backend_name() == "sqlite" else {"connect_timeout": str(int(SECONDS))}
    database = Database(url.update_query_dict(query).render_as_string(hide_password=False))
    try:
        with database.read() as session:
            asked = "SELECT sqlite_version()" if database.is_sqlite else "SHOW server_version"
            number = session.scalar(text(asked))
        old = outdated(database)
    finally:
        database.close()
    if old is not None:
        return Finding("service", "database", "problem", f"{shown}: {old}", "`pnc up` or `pnc migrate` updates it")
    return Finding("service", "database", "ok", f"{shown}: version {number}, schema up to date")


def _store(settings: "Settings") -> Finding:
    from app.process.troubles import try_to_write

    if "://" not in settings.store_url:
        folder = Path(settings.store_url)
        if not folder.exists():
            return Finding("service", "store", "note", f"{folder} does not exist yet", "`pnc up` makes it")
        try_to_write(folder)
        return Finding("service", "store", "ok", f"directory {folder}, writable")
    from app.store.s3 import open_s3_store

    with tempfile.TemporaryDirectory() as scratch:
        store = open_s3_store(settings, Path(scratch))
        try:
            store.check_writable()
        finally:
            store.close()
    return Finding("service", "store", "ok", f"{settings.store_url}, writable")


def _broker(settings: "Settings") -> Finding:
    if settings.broker_url is None:
        return Finding("service", "broker", "ok", "none: workers poll the database")
    import redis

    shown = _without_password(settings.broker_url)
    client = redis.Redis.from_url(settings.broker_url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS)
    try:
        client.ping()
        number = client.info("server")["redis_version"]
    except redis.RedisError as error:
        advice = "start Redis, or correct PNC_BROKER_URL"
        return Finding("service", "broker", "problem", f"{shown}: {' '.join(str(error).split())}", advice)
    finally:
        client.close()
    return Finding("service", "broker", "ok", f"{shown}: Redis {number}")


def _service(url: str) -> Finding:
    try:
        answers = [httpx.get(f"{url.rstrip('/')}{path}", timeout=SECONDS) for path in ("/healthz", "/readyz")]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        advice = "start one with `pnc up`, or set PNC_URL to its address"
        return Finding("service", "running service", "note", f"{url} does not answer: {error}", advice)
    alive, ready = answers
    if not alive.is_success:
        advice = "PNC_URL may be the address of another program"
        return Finding("service", "running service", "problem", f"{url}/healthz answers {alive.status_code}", advice)
    if not ready.is_success:
        detail = f"{url} runs, and is not ready: {' '.join(ready.text.split())[:300]}"
        return Finding("service", "running service", "problem", detail)
    return Finding("service", "running service", "ok", f"{url} is ready")
