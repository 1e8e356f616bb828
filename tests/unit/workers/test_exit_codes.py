"""How a process has ended: what the kernel counts decides whether memory was the reason."""

import signal
from pathlib import Path

import pytest

from workers import exit_codes

KILLED = -signal.SIGKILL


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where control groups are mounted; this process is said to be in none yet."""
    monkeypatch.setattr(exit_codes, "_MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(exit_codes, "_OWN", tmp_path / "own")
    return tmp_path / "cgroup"


def _count(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"low 0\noom 9\noom_kill {number}\noom_group_kill 7\n")


@pytest.mark.parametrize(
    ("own", "counter"),
    [
        ("0::/system.slice/pnc.service", "system.slice/pnc.service/memory.events"),
        ("4:memory:/docker/1\n0::/", "memory/docker/1/memory.oom_control"),
        ("0::/", "memory.events"),
        ("4:memory:/docker/1", "memory/memory.oom_control"),
    ],
    ids=["version 2", "version 1", "container of version 2", "container of version 1"],
)
def test_the_own_control_group_is_asked(mount: Path, own: str, counter: str) -> None:
    exit_codes._OWN.write_text(own + "\n")
    assert exit_codes.killed_for_memory() == 0
    _count(mount / counter, 3)
    assert exit_codes.killed_for_memory() == 3


def test_only_a_process_that_was_killed_was_killed_for_memory(mount: Path) -> None:
    _count(mount / "memory.events", 2)
    before = exit_codes.killed_for_memory()
    assert not exit_codes.was_out_of_memory(KILLED, before)
    _count(mount / "memory.events", 3)  # perhaps a neighbour
    assert exit_codes.was_out_of_memory(KILLED, before)
    assert not exit_codes.was_out_of_memory(1, before)
    assert exit_codes.was_out_of_memory(exit_codes.OUT_OF_MEMORY, before)


def test_people_are_told_what_is_known() -> None:
    assert exit_codes.reason(KILLED, out_of_memory=True) == "its process was killed because memory ran out"
    assert exit_codes.reason(KILLED) == "its process was killed, perhaps for using too much memory"
