"""The services that the tests use are installed, started once, killed, frozen and restarted."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis as RedisClient

from tests.services import Postgres, Redis, Unavailable
from tests.services.fixtures import Bucket
from tests.services.programs import find


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users can reach."""
    made = Path(tempfile.mkdtemp(prefix="pnc-services-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def _postgres(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True, connect_timeout=2)


def test_redis_forgets_and_postgres_remembers_when_killed(directory: Path) -> None:
    redis, postgres = Redis(directory).start(), Postgres(directory).start()
    try:
        with RedisClient.from_url(redis.url) as client:
            client.set("a", 1)
        with _postgres(postgres.url()) as connection:
            connection.execute("CREATE TABLE a (b int)")
        for service in (redis, postgres):
            service.kill()
            assert not service.answers()
            service.restart()
            assert service.answers()
        with RedisClient.from_url(redis.url) as client:
            assert client.get("a") is None
        with _postgres(postgres.url()) as connection:
            assert connection.execute("SELECT count(*) FROM a").fetchone() == (0,)
    finally:
        redis.stop()
        postgres.stop()


def test_objects_outlive_the_server_that_took_them(s3: Bucket) -> None:
    s3.client.put_object(Bucket=s3.name, Key="a", Body=b"kept")
    s3.service.kill()
    assert not s3.service.answers()
    s3.service.restart()
    assert s3.client.get_object(Bucket=s3.name, Key="a")["Body"].read() == b"kept"


def test_a_frozen_service_does_not_answer_until_it_thaws(redis_service: Redis) -> None:
    redis_service.pause()
    assert not redis_service.answers()
    redis_service.resume()
    assert redis_service.answers()


def test_starting_what_runs_changes_nothing(redis_service: Redis, postgres_service: Postgres) -> None:
    for service in (redis_service, postgres_service):
        again = type(service)(service.directory.parent)
        before = again.front.pid
        assert again.start().front.pid == before
        assert again.port == service.port


def test_the_command_starts_tells_and_ends(directory: Path) -> None:
    def command(action: str) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-m", "tests.services", action, "redis", "--dir", str(directory)]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)

    first, second = command("up"), command("up")
    assert first.stdout == second.stdout
    assert first.stdout.startswith("PNC_BROKER_URL=redis://127.0.0.1:")
    assert command("status").stdout == "redis: up\n"
    assert command("down").returncode == 0
    told = command("status")
    assert (told.returncode, told.stdout) == (1, "redis: down\n")


def test_services_die_with_the_process_that_started_them(directory: Path) -> None:
    code = (
        "import pathlib, sys, time; from tests.services import Redis;"
        "print(Redis(pathlib.Path(sys.argv[1])).start().front.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        service = psutil.Process(int(starter.stdout.readline()))
        os.kill(starter.pid, signal.SIGKILL)
        psutil.wait_procs([service], timeout=10)
    assert not service.is_running()


def test_what_cannot_be_had_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="apt-get install --no-install-recommends a-package"):
        find("no-such-program", ["a-package"])


_APT = """#!/bin/sh
# Like apt-get, it refuses to run beside another; it is refused once by somebody else's.
[ -e "$0.refused" ] || { touch "$0.refused"; echo "E: Could not get lock /var/lib/apt/lists/lock." >&2; exit 100; }
mkdir "$0.lock" || { echo "E: this is the second at a time" >&2; exit 100; }
sleep 0.3
echo "$*" >> "$0.log"
case "$*" in *install*) printf '#!/bin/sh\n' > "${0%/*}/a-program"; chmod +x "${0%/*}/a-program";; esac
rmdir "$0.lock"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_processes_that_miss_the_same_program_install_it_once(directory: Path) -> None:
    apt = directory / "apt-get"
    apt.write_text(_APT)
    apt.chmod(0o755)
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "TMPDIR": str(directory)}
    code = "from tests.services.programs import find; print(find('a-program', ['a-package']))"
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {(each.communicate()[0].strip(), each.returncode) for each in both} == {(str(directory / "a-program"), 0)}
    did = (directory / "apt-get.log").read_text().splitlines()
    assert [[word for word in line.split() if word in {"update", "install", "a-package"}] for line in did] == [
        ["update"],
        ["install", "a-package"],
    ]


def test_what_apt_says_is_passed_on(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt = directory / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2; exit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    with pytest.raises(Unavailable, match="no-such-program, got none, and apt fails: E: Unable to locate package"):
        find("no-such-program", ["a-package"])
