"""Shares of the processors, from trees of control groups as kernels and containers lay them."""

import math
import os
from pathlib import Path

import pytest

from app.process.resources import processors

V2 = "0::{group}\n"
V1 = "5:memory:/elsewhere\n3:cpu,cpuacct:{group}\n0::/\n"
V2_MOUNT = "31 23 0:38 {seen} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = (
    "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "32 31 0:29 {seen} /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nobody has said anything, on a machine with 16 processors."""
    for name in (processors.THREADS, "PNC_SHARED_THREADS", *processors.WAITING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    return monkeypatch


def lay(root: Path, group: str, mount: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": group, "proc/self/mountinfo": mount, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "seen", "files", "wanted"),
    [
        ("/", "/", {}, 16),
        ("/job", "/", {"job/cpu.max": "max 100000\n"}, 16),
        ("/job", "/", {"job/cpu.max": "250000 100000\n"}, 2.5),
        ("/pod/box", "/", {"pod/cpu.max": "150000 100000\n", "pod/box/cpu.max": "max 100000\n"}, 1.5),
        ("/pod/box", "/", {"pod/cpu.max": "400000 100000\n", "pod/box/cpu.max": "300000 100000\n"}, 3),
        # A container that sees its own group alone: below a name space, and where the host's path is shown.
        ("/", "/../..", {"cpu.max": "50000 100000\n"}, 0.5),
        ("/docker/1a", "/docker/1a", {"cpu.max": "200000 100000\n"}, 2),
        ("/docker/1a", "/docker/1a", {"docker/1a/cpu.max": "100000 100000\n"}, 16),
        ("/job", "/", {"job/cpu.max": "3200000 100000\n"}, 16),
        ("/job", "/", {"job/cpu.max": "soon\n", "cpu.max": "400000 0\n"}, 16),
    ],
)
def test_quotas_of_version_2(
    group: str, seen: str, files: dict[str, str], wanted: float, tmp_path: Path, alone: pytest.MonkeyPatch
) -> None:
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    root = lay(tmp_path, V2.format(group=group), V2_MOUNT.format(seen=seen), files)
    assert math.isclose(processors.usable(root), wanted)


@pytest.mark.parametrize(
    ("group", "seen", "quotas", "wanted"),
    [
        ("/", "/", {".": -1}, 16),
        ("/docker/1a", "/", {"docker/1a": 150_000}, 1.5),
        ("/docker/1a", "/docker/1a", {".": 300_000}, 3),
        ("/pod/box", "/", {"pod": 200_000, "pod/box": -1}, 2),
    ],
)
def test_quotas_of_version_1(
    group: str, seen: str, quotas: dict[str, int], wanted: float, tmp_path: Path, alone: pytest.MonkeyPatch
) -> None:
    files = {}
    for folder, quota in quotas.items():
        files[f"sys/fs/cgroup/cpu,cpuacct/{folder}/cpu.cfs_quota_us"] = f"{quota}\n"
        files[f"sys/fs/cgroup/cpu,cpuacct/{folder}/cpu.cfs_period_us"] = "100000\n"
    root = lay(tmp_path, V1.format(group=group), V1_MOUNT.format(seen=seen), files)
    assert math.isclose(processors.usable(root), wanted)


def test_without_control_groups_the_affinity_counts(tmp_path: Path, alone: pytest.MonkeyPatch) -> None:
    alone.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7})
    assert processors.usable(tmp_path) == 3
    alone.delattr(os, "sched_getaffinity")
    alone.setattr(os, "cpu_count", lambda: 12)
    assert processors.usable(tmp_path) == 12


@pytest.mark.parametrize(("usable", "parts", "wanted"), [(16, 1, 16), (16, 3, 5), (2.5, 2, 1), (0.5, 1, 1), (1, 64, 1)])
def test_each_part_gets_whole_processors_and_at_least_one(
    usable: float, parts: int, wanted: int, alone: pytest.MonkeyPatch
) -> None:
    alone.setattr(processors, "usable", lambda: usable)
    assert processors.share_of(parts) == wanted
    assert processors.variables(parts)[processors.THREADS] == str(wanted)


def test_a_process_takes_its_share_once_more_for_its_children_and_these_keep_theirs(alone: pytest.MonkeyPatch) -> None:
    alone.setattr(processors, "usable", lambda: 8.0)
    for name in (processors.THREADS, "PNC_SHARED_THREADS", *processors.WAITING):
        alone.setenv(name, "")  # puts them back afterwards
        alone.delenv(name)
    processors.begin()
    assert (os.environ[processors.THREADS], os.environ["OMP_WAIT_POLICY"]) == ("8", "passive")
    os.environ.update(processors.variables(parts=2))
    assert os.environ[processors.THREADS] == "4"
    assert processors.threads_for(10**12) == 4


def test_what_the_user_has_set_stays(alone: pytest.MonkeyPatch) -> None:
    alone.setenv(processors.THREADS, "6")
    alone.setenv("OMP_WAIT_POLICY", "active")
    assert processors.variables(parts=2, threads=3) == {"KMP_BLOCKTIME": "0"}
    assert processors.threads_for(0) == 6
    alone.setenv(processors.THREADS, "5,2")
    assert processors.threads_for(0) == 5


def test_threads_of_the_settings_stay_whatever_a_network_costs(alone: pytest.MonkeyPatch) -> None:
    alone.setattr(processors, "usable", lambda: 8.0)
    for name, value in processors.variables(parts=2, threads=3).items():
        alone.setenv(name, value)
    assert os.environ[processors.THREADS] == "3"
    assert processors.threads_for(0) == processors.threads_for(10**12) == 3
    assert processors.threads_for(0, threads=2) == 2


@pytest.mark.parametrize(("times", "wanted"), [(0, 1), (0.9, 1), (1.9, 1), (2, 2), (3.5, 3), (100, 8)])
def test_a_small_network_runs_on_one_thread_a_large_one_on_all(
    times: float, wanted: int, alone: pytest.MonkeyPatch
) -> None:
    alone.setattr(processors, "usable", lambda: 8.0)
    assert processors.threads_for(round(times * processors.WORK_OF_A_THREAD)) == wanted
