"""A real PostgreSQL; its data survives a kill."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from tests.services.processes import Process, as_user, own
from tests.services.programs import find
from tests.services.service import HOST, Service, running

USER, PASSWORD = "pnc", "not-secret"
SECRET_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
"""PNC_SECRET_KEY of all processes of a test: encrypts secrets in rows."""
_SYSTEM_USER = "postgres"
"""PostgreSQL refuses to run as root."""


class Postgres(Service):
    """A PostgreSQL server. The database `pnc` exists after the start; `create` makes others."""

    name = "postgres"

    def url(self, database: str = USER) -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg://{USER}:{PASSWORD}@{HOST}:{self.port}/{database}"

    def environment(self) -> dict[str, str]:
        """See `Service.environment`."""
        return {"PNC_DATABASE_URL": self.url(), "PNC_SECRET_KEY": SECRET_KEY}

    def create(self, database: str, template: str = "template0", encoding: str = "UTF8") -> str:
        """Create a database, as a copy of a template without open connections; returns its URL."""
        command = SQL("CREATE DATABASE {} TEMPLATE {} ENCODING {}")
        with self._connect() as connection:
            connection.execute(command.format(Identifier(database), Identifier(template), Literal(encoding)))
        return self.url(database)

    def drop(self, database: str) -> None:
        """Drop a database and close its connections."""
        with self._connect() as connection:
            connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(database)))

    def start(self) -> Self:
        """See `Service.start`."""
        if not (self._data / "PG_VERSION").exists():
            self._initialize()
        super().start()
        with self._connect() as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [USER]).fetchone() is None:
                connection.execute(SQL("CREATE DATABASE {}").format(Identifier(USER)))
        return self

    def answers(self) -> bool:
        """See `Service.answers`."""
        with suppress(psycopg.OperationalError), self._connect():
            return True
        return False

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        )

    def _front(self) -> Process:
        # No fsync: tests kill processes, not the machine, and the kernel keeps written data.
        given = [f"listen_addresses={HOST}", "unix_socket_directories=", "fsync=off", "max_connections=300"]
        options = [word for setting in given for word in ("-c", setting)]
        command = [find("postgres", ["postgresql"]), "-D", str(self._data), "-p", str(self.port), *options]
        return Process(command, self.directory, user=_SYSTEM_USER, lasting=self.lasting)

    def _initialize(self) -> None:
        own(self.directory, _SYSTEM_USER)
        password = self.directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        options = ["-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C", "--no-sync"]
        command = [*as_user(_SYSTEM_USER), find("initdb", ["postgresql"]), "-D", str(self._data), *options]
        subprocess.run(command, check=True, capture_output=True, cwd="/")


@contextmanager
def postgres(directory: Path) -> Iterator[Postgres]:
    """Run a PostgreSQL within a block."""
    with running(Postgres, directory) as service:
        yield service
