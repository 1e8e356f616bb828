"""One line for each check, and the figures for the last line."""

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Report:
    """The result of a run."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.figures: dict[str, Any] = {}

    def check(self, name: str, good: bool, otherwise: object = "") -> bool:
        """Print a line about one expectation; returns whether it was met.

        Args:
            name: The expectation.
            good: Whether it was met.
            otherwise: Facts that explain a failure.
        """
        if good:
            print(f"OK {name}", flush=True)
        else:
            self.failed.append(name)
            print(f"FAILED {name}: {' '.join(str(otherwise).split())[-700:]}", flush=True)
        return good

    def equal(self, name: str, got: object, expected: object) -> bool:
        """Expect two equal values."""
        return self.check(name, got == expected, f"expected {expected!r}, got {got!r}")

    def note(self, name: str, value: object) -> None:
        """Record a figure and print it."""
        self.figures[name] = value
        print(f"   {name}: {value}", flush=True)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part whose unexpected error fails it, without ending the parts after it."""
        print(f"-- {name}", flush=True)
        try:
            yield
        except Exception as error:
            detail = getattr(error, "stdout", None) or getattr(error, "output", None) or ""
            self.check(f"{name}, to its end", False, f"{traceback.format_exc(limit=-2)} {detail[-500:]}")

    def end(self) -> int:
        """Print the last line; returns the exit status."""
        result = {"failed": self.failed, **self.figures}
        print(f"COMPOSE {json.dumps(result)}", flush=True)
        return 1 if self.failed else 0


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 1.0) -> bool:
    """Wait until a condition holds; returns whether it did in time."""
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(pause)
    return condition()
