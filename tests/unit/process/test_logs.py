import json
import logging
from typing import Any

import pytest

from app.process.logs import formatter
from app.settings import Settings


def _line(form: str, about: dict[str, Any], error: Exception | None = None) -> str:
    settings = Settings(log_format=form)  # type: ignore[arg-type]
    info = (type(error), error, None) if error else None
    record = logging.LogRecord("app.serving.protocol.routes", logging.WARNING, "", 1, "waited %d s\n{", (3,), info)
    vars(record).update(about)
    return formatter(settings, "serving").format(record)


def test_a_line_of_json_is_one_object_with_what_it_is_about() -> None:
    line = _line("json", {"deployment": "digits", "generation": 3, "request_id": "req_1", "job_id": None, "other": 1})
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "warning",
        "process": "serving",
        "logger": "app.serving.protocol.routes",
        "message": "waited 3 s\n{",
        "deployment": "digits",
        "generation": 3,
        "request_id": "req_1",
    }


def test_an_exception_is_part_of_its_line() -> None:
    line = _line("json", {}, ValueError("expected a, got b"))
    assert "\n" not in line
    assert "expected a, got b" in json.loads(line)["exception"]


@pytest.mark.parametrize(("about", "end"), [({}, "{"), ({"deployment": "digits"}, "{ [deployment=digits]")])
def test_a_line_of_text_ends_with_what_it_is_about(about: dict[str, Any], end: str) -> None:
    assert _line("text", about) == f"WARNING serving: waited 3 s\n{end}"
