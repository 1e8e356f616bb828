"""Processes of one release run on the schema of the next, so that they can be replaced one by one.

A migration only adds what the code before it need not know. What it makes needless is removed by a later release.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, UniqueConstraint, inspect, select, text

from app.db import engine
from app.db.engine import Database
from app.jobs import runs
from app.jobs import service as jobs
from app.modules.tables import ModuleRow
from app.zoo import Zoo
from tests.unit import seeds

FIRST = "0014"
"""From this revision on, each migration only expands."""


def pairs() -> list[tuple[str, str]]:
    """Each revision from `FIRST` on with the one after it."""
    scripts = list(ScriptDirectory.from_config(engine.alembic_config()).walk_revisions())
    revisions = sorted(script.revision for script in scripts)
    return [(a, b) for a, b in pairwise(revisions) if a >= FIRST]


def reflected(connection: Connection) -> MetaData:
    found = MetaData()
    found.reflect(connection)
    return found


def broken(before: MetaData, after: MetaData) -> list[str]:
    """What code that knows only the tables `before` could stumble over."""
    found = []
    for name, old in before.tables.items():
        new = after.tables.get(name)
        found += [f"{name} is gone"] if new is None else _broken(old, new)
    return found


def _broken(old: Table, new: Table) -> Iterator[str]:
    for column in old.columns:
        kept = new.columns.get(column.name)
        if kept is None:
            yield f"{column} is gone"
        elif str(kept.type) != str(column.type):
            yield f"{column} was {column.type} and is {kept.type}"
        elif column.nullable and not kept.nullable:
            yield f"{column} must have a value now"
    for column in new.columns:
        if column.name not in old.columns and not column.nullable and column.server_default is None:
            yield f"{column} is new and needs a value"
    for constraint in new.constraints - old.constraints:
        if isinstance(constraint, UniqueConstraint):
            known = {frozenset(c.columns.keys()) for c in old.constraints if isinstance(c, UniqueConstraint)}
            columns = frozenset(constraint.columns.keys())
            if columns <= set(old.columns.keys()) and columns not in known:
                yield f"{sorted(columns)} of {new.name} must be unique now"


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: "-".join(pair))
def test_a_migration_only_expands(pair: tuple[str, str], empty_database_url: str) -> None:
    database = Database(empty_database_url)
    found = []
    for revision in pair:
        with database.engine.execution_options(pnc_write=True).begin() as connection:
            command.upgrade(engine.alembic_config(connection), revision)
        with database.engine.connect() as connection:
            found.append(reflected(connection))
    database.close()
    assert broken(*found) == []


BREAKING = {
    "DROP TABLE things": "things is gone",
    "ALTER TABLE things DROP COLUMN name": "things.name is gone",
    "ALTER TABLE things RENAME COLUMN name TO title": "things.name is gone",
    "ALTER TABLE things ADD COLUMN size INTEGER NOT NULL": "things.size is new and needs a value",
}
"""SQL of both databases on an empty table, and the finding."""


@pytest.mark.parametrize("statement", BREAKING)
def test_a_migration_that_breaks_is_seen(statement: str, empty_database_url: str) -> None:
    database = Database(empty_database_url)
    if database.is_sqlite and "NOT NULL" in statement:  # SQLite itself refuses it
        statement_run = "ALTER TABLE things ADD COLUMN size INTEGER NOT NULL DEFAULT 0"
        expected: list[str] = []
    else:
        statement_run, expected = statement, [BREAKING[statement]]
    with database.engine.execution_options(pnc_write=True).begin() as connection:
        connection.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)"))
        before = reflected(connection)
        connection.execute(text(statement_run))
        after = reflected(connection)
    database.close()
    assert broken(before, after) == expected


def expand(connection: Any) -> None:
    """Make the schema a later one: every table gets two columns that this code does not know."""
    for table in inspect(connection).get_table_names():
        if table != "alembic_version":
            connection.execute(text(f'ALTER TABLE "{table}" ADD COLUMN later_note VARCHAR'))
            connection.execute(text(f"ALTER TABLE \"{table}\" ADD COLUMN later_count INTEGER NOT NULL DEFAULT '7'"))
    connection.execute(text("CREATE TABLE later_things (id VARCHAR PRIMARY KEY)"))
    connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))


def contract(connection: Any, revision: str) -> None:
    """Reverse `expand` on PostgreSQL."""
    connection.execute(text("DROP TABLE later_things"))
    for table in inspect(connection).get_table_names():
        if table != "alembic_version":
            connection.execute(text(f'ALTER TABLE "{table}" DROP COLUMN later_note, DROP COLUMN later_count'))
    connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def test_this_code_runs_on_the_schema_of_the_next_release(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        before = seeds.module(session, zoo)
        data = seeds.job_of(session, before).dataset_id
        waiting = jobs.submit(session, seeds.another_request(data)).id
    with zoo.database.engine.execution_options(pnc_write=True).begin() as connection:
        expand(connection)
    assert engine.outdated(zoo.database) is None
    with zoo.database.write() as session:
        lease = runs.claim(session, "worker")
        assert lease is not None
        assert lease.id == waiting
        assert runs.heartbeat(session, lease) == "continue"
        seeds.publish(session, zoo, lease)
        another = seeds.another_module(session, zoo, data, ("7", "8"))
    with zoo.database.read() as session:
        assert jobs.get(session, waiting).state == "succeeded"
        assert {module.id for module in session.scalars(select(ModuleRow))} >= {before.id, another.id}
