"""Each role has its own user, its own secrets and limits, and publishes no more than it has to."""

import json

from tests.compose.report import Report
from tests.compose.sandbox import PORT, PROJECT
from tests.compose.stack import Stack, listening

OURS = ("api", "serving", "worker")
ALL = (*OURS, "postgres", "redis")
SECRETS = {
    "api": {"database-url", "broker-url", "internal-key", "secret-keys", "aws"},
    "serving": {"database-url", "internal-key", "aws"},
    "worker": {"database-url", "broker-url", "secret-keys", "aws"},
    "postgres": {"password"},
    "redis": {"password", "redis.conf"},
}
"""The files that each service can read."""


def check(report: Report, stack: Stack) -> None:
    """Check users, file systems, secrets, limits and ports."""
    for service in OURS:
        report.equal(
            f"{service} runs as 10001:10001",
            stack.execute(service, "sh", "-c", "id -u; id -g")[1].split(),
            ["10001", "10001"],
        )
        report.check(f"{service} cannot write to its root", stack.execute(service, "touch", "/x", user="0")[0] != 0)
        report.equal(f"{service} has its TMPDIR", stack.execute(service, "sh", "-c", "test -w $TMPDIR")[0], 0)
    for service, files in SECRETS.items():
        seen = stack.execute(service, "ls", "/run/secrets/pnc")[1].split()
        report.equal(f"{service} reads only its own secrets", set(seen), files)
        secret = _values(stack)
        shown = json.dumps(stack.inspect(service)["Config"])
        report.check(f"{service} has no secret in its environment", not [v for v in secret if v in shown])
    for service in ALL:
        host = stack.inspect(service)["HostConfig"]
        limits = (host["Memory"] > 0, host["PidsLimit"] > 0, host["LogConfig"]["Config"].get("max-size") is not None)
        report.equal(f"{service} has limits of memory, processes and log", limits, (True, True, True))
        report.equal(f"{service} has no capability but those named", host["CapDrop"], ["ALL"])
    told = listening(stack.box)
    report.equal("only loopback is published", told - {PORT}, set())
    anonymous = [name for name in stack.volumes() if not name.startswith(f"{PROJECT}_")]
    report.equal("no volume without a name", anonymous, [])


def _values(stack: Stack) -> list[str]:
    place = f"/var/lib/docker/volumes/{PROJECT}_secrets/_data"
    return stack.box.run("sh", "-c", f"for f in {place}/*; do cat $f; echo; done").stdout.split()


def check_encoding(report: Report, stack: Stack) -> None:
    """A database with another encoding gives one clear line."""
    stack.execute("postgres", "createdb", "-U", "pnc", "-E", "SQL_ASCII", "-T", "template0", "ascii")
    url = stack.execute("api", "cat", "/run/secrets/pnc/database-url")[1]
    ascii_url = f"PNC_DATABASE_URL={url.rpartition('/')[0]}/ascii"
    told = stack.compose("run", "--rm", "-T", "--no-deps", "--env", ascii_url, "migrate", check=False)
    lines = [line for line in told.splitlines() if line.strip() and "Container" not in line and "Network" not in line]
    expected = "expected a database with the encoding UTF8, got SQL_ASCII"
    report.check("another encoding gives one line", len(lines) == 1 and expected in lines[0], told)
    stack.execute("postgres", "dropdb", "-U", "pnc", "ascii")
