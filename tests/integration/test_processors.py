"""Processes that run networks use their share of the processors, and their threads sleep while they wait."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from app.process.resources import control_groups, processors
from tests.integration.conftest import wait_until

PNC = [sys.executable, "-P", "-m", "app.cli"]
COUNT = (
    "from app.process.resources import processors; processors.begin(); import torch; print(torch.get_num_threads(), "
    "processors.threads_for(0), processors.threads_for(10**15))"
)
SHOWN = "print(torch.get_num_threads())"
OURS = {processors.THREADS, "PNC_SHARED_THREADS", "PNC_THREADS", *processors.WAITING}


def unset(**settings: str) -> dict[str, str]:
    """This environment without the variables that set numbers of threads."""
    return {**{name: value for name, value in os.environ.items() if name not in OURS}, **settings}


def counted(prefix: Sequence[str] = (), **settings: str) -> list[int]:
    """Numbers of torch's threads in a new process: at start, for a small network and for a large network."""
    command = [*prefix, sys.executable, "-c", COUNT]
    done = subprocess.run(command, env=unset(**settings), capture_output=True, text=True, check=True)
    return list(map(int, done.stdout.split()))


def test_a_process_has_the_processors_that_it_may_use_and_no_more() -> None:
    all_of_them = processors.share_of(1)
    assert counted() == [all_of_them, 1, all_of_them]
    assert counted(["taskset", "-c", str(min(os.sched_getaffinity(0)))]) == [1, 1, 1]
    assert counted(OMP_NUM_THREADS="1") == [1, 1, 1]


@pytest.fixture
def quota() -> Iterator[Path]:
    """A control group with half a processor; if none can be created, the files of the unit tests replace it."""
    if os.geteuid() != 0:
        pytest.skip("only root makes control groups")
    made = _group()
    if made is None:
        pytest.skip("the control groups of this machine cannot be changed")
    yield made
    with suppress(OSError):
        made.rmdir()


def _group() -> Path | None:
    for mount in control_groups._mounts(Path("/"), "cpu"):
        group = control_groups._own(Path("/"), "cpu").get(mount.is_v2)
        folder = Path(mount.point) / (group or "/").lstrip("/") / f"pnc-test-{os.getpid()}"
        try:
            folder.mkdir()
            if mount.is_v2:
                (folder / "cpu.max").write_text("50000 100000")
            else:
                (folder / "cpu.cfs_quota_us").write_text("50000")
        except OSError:
            with suppress(OSError):
                folder.rmdir()
            continue
        return folder
    return None


def test_the_quota_of_a_control_group_counts(quota: Path) -> None:
    inside = ["sh", "-c", f'echo $$ > {quota / "cgroup.procs"} && exec "$@"', "sh"]
    told = "from app.process.resources import processors; print(processors.usable())"
    done = subprocess.run([*inside, sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert float(done.stdout) == 0.5
    assert counted(inside) == [1, 1, 1]


def test_the_processes_of_the_service_share_the_processors_and_wait_passively(tmp_path: Path) -> None:
    """Every process that loads torch's OpenMP prints the settings that it has read."""
    said = tmp_path / "stderr"
    command = [*PNC, "up", "--port", "0", "--data-dir", str(tmp_path / "data")]
    with (
        said.open("w") as stderr,
        subprocess.Popen(command, env=unset(OMP_DISPLAY_ENV="verbose"), stdout=subprocess.PIPE, stderr=stderr) as up,
    ):
        assert up.stdout is not None
        assert up.stdout.readline().startswith(b"ready")
        wait_until(
            lambda: said.read_text().count("OPENMP DISPLAY ENVIRONMENT END") >= 2, 60
        )  # serving, and the worker's fork server
        up.terminate()
        assert up.wait(30) == 0
    share = processors.share_of(2)
    for name, wanted in (("OMP_NUM_THREADS", str(share)), ("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "0")):
        found = re.findall(rf"{name} = '([^']*)'", said.read_text())
        assert (len(found), set(found)) == (len(found), {wanted}), name
        assert len(found) >= 2


@pytest.mark.parametrize("words", [["evidence", "--help"], ["clone", "--help"]], ids=lambda words: words[0])
def test_a_command_sets_the_same_for_itself(words: list[str]) -> None:
    program = f"import sys, app.cli; sys.argv[1:] = {words}\ntry: app.cli.main()\nfinally: import torch; {SHOWN}"
    environment = unset(OMP_DISPLAY_ENV="verbose")
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == str(processors.share_of(1))
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
