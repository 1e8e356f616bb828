"""What signals do to a process, sent to this one for a moment."""

import signal
from collections.abc import Iterator

import pytest

from app.process import signals

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Puts back what signals did before."""
    before = {number: signal.getsignal(number) for number in ALL}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ([signal.SIGTERM], ["ask"]),
        ([signal.SIGINT], ["ask"]),
        ([signal.SIGHUP], ["ask"]),
        ([signal.SIGINT, signal.SIGINT], ["ask", "hurry"]),
        ([signal.SIGTERM, signal.SIGINT], ["ask", "hurry"]),
        ([signal.SIGHUP, signal.SIGHUP, signal.SIGTERM], ["ask", "ask", "ask"]),
        ([signal.SIGTERM, signal.SIGTERM], ["ask", "ask"]),
    ],
    ids=lambda names: "-".join(str(getattr(name, "name", name)) for name in names),
)
def test_only_a_second_ctrl_c_hurries(sent: list[signal.Signals], wanted: list[str]) -> None:
    done: list[str] = []
    signals.on_signals(lambda: done.append("ask"), lambda: done.append("hurry"))
    for number in sent:
        signal.raise_signal(number)
    assert done == wanted


def test_what_is_ignored_when_a_process_starts_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.on_signals(lambda: pytest.fail("asked"), lambda: pytest.fail("hurried"))
    signal.raise_signal(signal.SIGHUP)


def test_a_child_leaves_a_terminals_signals_to_its_parent() -> None:
    signals.leave_to_parent()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGHUP)
