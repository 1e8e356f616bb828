"""Logging of every process: one line a message on standard error, as text or as JSON.

Fields such as deployment, generation, request or job go into `extra`. Only this module formats lines. A text line
shows the fields after the message.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from app.process import tracing
from app.settings import Settings

FIELDS = ("deployment", "generation", "module_id", "request_id", "job_id", "milliseconds")
"""Fields that `extra` may hold. Traced processes add `trace_id`."""


class _Text(logging.Formatter):
    """`INFO serving: serving it [deployment=digits generation=3]`."""

    def format(self, record: logging.LogRecord) -> str:
        about = " ".join(f"{name}={value}" for name, value in _about(record).items())
        record.about = f" [{about}]" if about else ""
        return super().format(record)


class _Json(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **_about(record),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def _about(record: logging.LogRecord) -> dict[str, Any]:
    about = {name: getattr(record, name) for name in FIELDS if getattr(record, name, None) is not None}
    trace_id = tracing.trace_id()
    return about if trace_id is None else {**about, "trace_id": trace_id}


def formatter(settings: Settings, process: str) -> logging.Formatter:
    """The formatter of a process's log lines."""
    if settings.log_format == "json":
        return _Json(process)
    return _Text(f"%(levelname)s {process}: %(message)s%(about)s")


def log_to_stderr(settings: Settings, process: str) -> None:
    """Configure the root logger. Verbose libraries log warnings only.

    Args:
        settings: Level and format of the log.
        process: Name of the process in every line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings, process))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    for verbose in ("alembic", "httpx"):
        logging.getLogger(verbose).setLevel(logging.WARNING)
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # warns of every failed attempt to reach a collector
