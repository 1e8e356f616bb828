"""How every process logs: one line a message, on standard error, as text or as JSON.

What a message is about (a deployment, a generation, a request, a job) goes into `extra`; this is the one
place that knows the form of a line. In text such fields stand behind the message.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from app.process import tracing
from app.settings import Settings

FIELDS = ("deployment", "generation", "module_id", "request_id", "job_id", "milliseconds")
"""What a message can be about, by the names that its `extra` uses; where traces are on, `trace_id` comes by itself."""


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
    """Of the lines of a process."""
    if settings.log_format == "json":
        return _Json(process)
    return _Text(f"%(levelname)s {process}: %(message)s%(about)s")


def log_to_stderr(settings: Settings, process: str) -> None:
    """Set the root logger up; libraries that chatter are kept to warnings.

    Args:
        settings: Says how much is logged, and in which form.
        process: Named in every line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings, process))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # warns of each try to reach a collector
