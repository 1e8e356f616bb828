"""Memory of control groups, from trees as kernels and containers lay them."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from app.process.resources import memory
from app.process.resources.memory import Room
from tests.unit.process.resources.test_processors import V2, V2_MOUNT, lay

V1 = "5:memory:{group}\n3:cpu,cpuacct:/elsewhere\n"
V1_MOUNT = "32 31 0:29 {seen} /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 1000 bytes, 600 of them free."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=600))


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert memory.room(tmp_path) == Room(1000, 600)


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [("max", Room(1000, 600)), ("400", Room(400, 150)), ("5000", Room(1000, 600)), ("200", Room(200, -50))],
)
def test_the_narrowest_group_counts_and_cached_files_are_free(limit: str, wanted: Room, tmp_path: Path) -> None:
    files = {"pod/memory.max": limit, "pod/memory.current": "300", "pod/memory.stat": "anon 9\ninactive_file 50\n"}
    root = lay(
        tmp_path,
        V2.format(group="/pod/box"),
        V2_MOUNT.format(seen="/"),
        {f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    )
    assert memory.room(root) == wanted


def test_groups_of_version_1_count(tmp_path: Path) -> None:
    files = {
        "memory.limit_in_bytes": "500",
        "memory.usage_in_bytes": "450",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 20\n",
    }
    root = lay(
        tmp_path,
        V1.format(group="/job"),
        V1_MOUNT.format(seen="/job"),
        {f"sys/fs/cgroup/memory/{name}": text for name, text in files.items()},
    )
    assert memory.room(root) == Room(500, 70)
